"""Programs that try to have an effect outside of their jail, or on their own verdict: data, no judgement.

The body of each is that of a function `attack` whose result DONE says that it worked. In the text, OUTSIDE
is a folder of the attack's own that may be written to, with a file in it (MINE), SECRET is a file to be read
and KEPT its text, SHARED a name in shared memory; PORT, ABSTRACT and SOCKET are listeners, VICTIM is a
process of the same user, and the attack's own too.
"""

from __future__ import annotations

from dataclasses import dataclass

_LIBC = "libc = __import__('ctypes').CDLL(None, use_errno=True)\n"
_HOLD = "while True: pass"


@dataclass(frozen=True)
class Attack:
    name: str
    body: str
    verdicts: tuple[str, ...] = ("error", "wrong")
    harmless: bool = True  # may be run without a jail, to see that it works there
    at_load: bool = False  # the body is the module's own text


def _call(*arguments: object) -> str:
    """Return a body that makes a system call and takes anything but -1 for success."""
    listed = ", ".join(map(str, arguments))
    long = "[ctypes.c_long(a) if isinstance(a, int) else a for a in"
    return _LIBC + f"import ctypes\nif libc.syscall(*{long} ({listed},)]) != -1: return DONE"


FILES = (
    Attack("reads_a_file", "if open(SECRET).read() == KEPT: return DONE"),
    Attack("reads_through_its_own_root", "if open('/proc/self/root' + SECRET).read() == KEPT: return DONE"),
    Attack(
        "reads_through_another_root",
        "if open(f'/proc/{VICTIM}/root' + SECRET).read() == KEPT: return DONE",
    ),
    Attack("lists_a_folder", "import os\nif os.listdir(OUTSIDE): return DONE"),
    Attack("reads_the_list_of_users", "if 'root' in open('/etc/passwd').read(): return DONE"),
    Attack("reads_an_installed_package", "if open(PACKAGE).read(): return DONE"),
    Attack("reads_the_projects_own_code", "if open(PROJECT).read(): return DONE"),
    Attack(
        "reads_by_a_handle",
        _LIBC
        + "import ctypes, os, struct\nbuffer = ctypes.create_string_buffer(struct.pack('Ii128x', 128, 0))\n"
        "mount = ctypes.c_int()\n"
        "assert libc.name_to_handle_at(-100, SECRET.encode(), buffer, ctypes.byref(mount), 0) == 0\n"
        "fd = libc.open_by_handle_at(os.open('/', os.O_RDONLY), buffer, 0)\n"
        "if os.read(fd, 100).decode() == KEPT: return DONE",
        harmless=False,  # works for root on some file systems alone
    ),
    Attack("reads_the_kernels_log", _LIBC + "if libc.klogctl(10, None, 0) > 0: return DONE", harmless=False),
    Attack("reads_a_device", "if open('/dev/zero', 'rb').read(1): return DONE"),
    Attack("writes_a_file", "open(f'{OUTSIDE}/writes_a_file', 'w').write('x'); return DONE"),
    Attack("writes_where_it_is", "open('here', 'w').write('x'); return DONE"),
    Attack("writes_a_temporary_file", "import tempfile\ntempfile.TemporaryFile().write(b'x'); return DONE"),
    Attack("writes_shared_memory", "open(SHARED, 'w').write('x'); return DONE"),
    Attack("appends", "open(MINE, 'a').write('x'); return DONE"),
    Attack("truncates", "import os\nos.truncate(MINE, 0); return DONE"),
    Attack("removes", "import os\nos.remove(MINE); return DONE"),
    Attack("renames", "import os\nos.rename(MINE, MINE + '.moved'); return DONE"),
    Attack("makes_a_folder", "import os\nos.mkdir(f'{OUTSIDE}/makes_a_folder'); return DONE"),
    Attack("makes_a_symbolic_link", "import os\nos.symlink(SECRET, f'{OUTSIDE}/link'); return DONE"),
    Attack("makes_a_hard_link", "import os\nos.link(MINE, f'{OUTSIDE}/hard'); return DONE"),
    Attack("makes_a_fifo", "import os\nos.mkfifo(f'{OUTSIDE}/fifo'); return DONE"),
    Attack("makes_a_fifo_where_it_is", "import os\nos.mkfifo('stdout'); return DONE"),
    Attack("makes_a_folder_where_it_is", "import os\nos.mkdir('stdout'); return DONE"),
    Attack(
        "makes_a_device", "import os\nos.mknod(f'{OUTSIDE}/null', 0o20666, os.makedev(1, 3)); return DONE"
    ),
    Attack("changes_rights", "import os\nos.chmod(MINE, 0o777); return DONE"),
    Attack("changes_times", "import os\nos.utime(MINE, (1, 1)); return DONE"),
    Attack("changes_an_owner", "import os\nos.chown(MINE, 1234, -1); return DONE"),
    Attack("changes_root", "import os\nos.chroot('/'); return DONE"),
    Attack(
        "mounts",
        _LIBC + "if libc.mount(b'none', OUTSIDE.encode(), b'tmpfs', 0, None) == 0: return DONE",
        harmless=False,
    ),
    Attack(
        "fills_the_disk",
        "with open(f'{OUTSIDE}/filler', 'wb') as file:\n    while True: file.write(bytes(2**20))",
        harmless=False,
    ),
    Attack(
        "fills_files_in_memory",
        "import os\nfor i in range(20): os.write(os.memfd_create(str(i)), bytes(2**20))\nreturn DONE",
    ),
    Attack("maps_a_library_to_write", "import mmap\nmmap.mmap(-1, 2**20)[0] = 1; return DONE"),
)

_TCP = "import socket\nwith socket.create_connection(('127.0.0.1', PORT)) as s: s.sendall(b'x')\nreturn DONE"
NETWORK = (
    Attack("connects_to_the_loopback", _TCP),
    Attack(
        "sends_a_datagram",
        "import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT)); return DONE",
    ),
    Attack("listens", "import socket\nsocket.create_server(('127.0.0.1', 0)); return DONE"),
    Attack(
        "connects_to_an_abstract_socket",
        "import socket\nsocket.socket(socket.AF_UNIX).connect(chr(0) + ABSTRACT); return DONE",
    ),
    Attack(
        "connects_to_a_socket_file",
        "import socket\nsocket.socket(socket.AF_UNIX).connect(SOCKET); return DONE",
    ),
    Attack(
        "listens_to_the_kernel",
        "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW); return DONE",
    ),
    Attack("makes_a_pair_of_sockets", "import socket\nsocket.socketpair(); return DONE"),
    Attack("makes_a_ring_of_requests", _call(425, 4, "ctypes.create_string_buffer(120)"), harmless=False),
)

PROCESSES = (
    Attack("sees_processes", "import os\nif [n for n in os.listdir('/proc') if n.isdigit()]: return DONE"),
    Attack("reads_an_environment", "if open(f'/proc/{VICTIM}/environ').read(): return DONE"),
    Attack(
        "reads_the_first_environment", "if open('/proc/1/environ', 'rb').read(): return DONE", harmless=False
    ),
    Attack(
        "reads_its_parents_arguments",
        "import os\nif open(f'/proc/{os.getppid()}/cmdline').read(): return DONE",
    ),
    Attack(
        "has_an_environment",
        "import os\nif os.getenv('JAIL_SECRET') or os.getenv('PATH'): return DONE",
        harmless=False,
    ),
    Attack("kills", "import os\nos.kill(VICTIM, 9); return DONE"),
    Attack("stops_its_parent", "import os\nos.kill(os.getppid(), 19); return DONE", harmless=False),
    Attack("kills_its_group", "import os\nos.killpg(0, 15); return DONE", harmless=False),
    Attack("kills_a_thread", _call(234, "VICTIM", "VICTIM", 15)),
    Attack(
        "kills_by_descriptor",
        "import os, signal\nsignal.pidfd_send_signal(os.pidfd_open(VICTIM), 15)\nreturn DONE",
    ),
    Attack("queues_a_signal", _call(129, "VICTIM", 15, "b'\\x0f' + bytes(7) + b'\\xff' * 4 + bytes(116)")),
    Attack(
        "has_a_signal_sent",
        "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, 8, VICTIM)\nfcntl.fcntl(r, 10, 9)\n"
        "fcntl.fcntl(r, 4, os.O_ASYNC)\nos.write(w, b'x')\nreturn DONE",
    ),
    Attack("traces", _LIBC + "if libc.ptrace(0x4206, VICTIM, None, None) == 0: return DONE", harmless=False),
    Attack("traces_itself", _LIBC + "if libc.ptrace(0, 0, None, None) == 0: return DONE", harmless=False),
    Attack("reads_memory", _call(310, "VICTIM", "None", 0, "None", 0, 0)),
    Attack("writes_its_own_memory_by_name", "import os\nos.open('/proc/self/mem', os.O_RDWR); return DONE"),
    Attack(
        "limits_another",
        "import resource\nresource.prlimit(VICTIM, resource.RLIMIT_NOFILE, (5, 5)); return DONE",
    ),
    Attack("slows_another", "import os\nos.setpriority(os.PRIO_PROCESS, VICTIM, 19); return DONE"),
    Attack("moves_another", "import os\nos.sched_setaffinity(VICTIM, {0}); return DONE"),
    Attack(
        "raises_its_limits",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (999, 999)); return DONE",
        harmless=False,
    ),
    Attack("forks", "import os\nif os.fork() == 0: os._exit(0)\nreturn DONE"),
    Attack("forks_without_end", "import os\nwhile True: os.fork()", harmless=False),
    Attack("forks_by_number", _call(57) + "\n" + _call(58) + "\n" + _call(435, "None", 0), harmless=False),
    Attack("starts_a_thread", "import threading\nthreading.Thread(target=int).start(); return DONE"),
    Attack(
        "starts_a_program",
        "import subprocess\nsubprocess.run(['/bin/sh', '-c', f'echo x >> {MINE}'], check=True); return DONE",
    ),
    Attack(
        "becomes_a_program",
        "import os\nos.execv('/bin/sh', ['sh', '-c', f'echo x >> {MINE}'])",
        harmless=False,
    ),
    Attack(
        "leaves_a_grandchild",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n"
        "    if os.fork() == 0:\n        time.sleep(0.5)\n"
        "        open(f'{OUTSIDE}/grandchild', 'w').close()\n"
        "    os._exit(0)\nreturn DONE",
        harmless=False,
    ),
    Attack("becomes_root", "import os\nos.setuid(0); return DONE"),
    Attack("becomes_another_user", "import os\nos.setresuid(1000, 1000, 1000); return DONE"),
    Attack("makes_a_namespace", _LIBC + "if libc.unshare(0x10000000) == 0: return DONE", harmless=False),
    Attack("joins_a_namespace", "import os\nos.open(f'/proc/{VICTIM}/ns/net', os.O_RDONLY); return DONE"),
)

KERNEL = (
    Attack("finds_shared_memory", _call(29, "SHM_KEY", 4096, "0o666")),
    Attack("finds_a_message_queue", _call(68, "SHM_KEY", "0o1666"), harmless=False),
    Attack("finds_a_semaphore", _call(64, "SHM_KEY", 1, "0o1666"), harmless=False),
    Attack("opens_a_posix_queue", _call(240, "b'jail_attack'", "0o100 | 2", "0o600", "None"), harmless=False),
    Attack("keeps_a_key", _call(248, "b'user'", "b'jail'", "b'x'", 1, -3), harmless=False),
    Attack("reads_keys", _call(250, 0, -3, 0), harmless=False),
    Attack("loads_a_kernel_program", _call(321, 0, "ctypes.create_string_buffer(64)", 64), harmless=False),
    Attack(
        "counts_performance", _call(298, "ctypes.create_string_buffer(128)", 0, -1, -1, 0), harmless=False
    ),
    Attack("handles_page_faults", _call(323, 1), harmless=False),
    Attack("loads_a_module", _call(175, "b''", 0, "b''"), harmless=False),
    Attack("names_the_machine", "import socket\nsocket.sethostname('jail'); return DONE", harmless=False),
    Attack("sets_the_clock", "import time\ntime.clock_settime(0, time.time()); return DONE", harmless=False),
    Attack("makes_another_filter", _LIBC + "if libc.prctl(22, 1, 0, 0, 0) == 0: return DONE", harmless=False),
    Attack("watches_files", _LIBC + "if libc.inotify_init() != -1: return DONE"),
    Attack("calls_the_old_way", _call(0x40000000 + 39), harmless=False),
)

BOUNDS = (
    Attack("takes_all_memory", "bytearray(2**31)", ("memory",), harmless=False),
    Attack(
        "takes_memory_bit_by_bit", "x = []\nwhile True: x.append(bytes(2**16))", ("memory",), harmless=False
    ),
    Attack("works_for_ever", _HOLD, ("timeout",), harmless=False),
    Attack("works_for_ever_at_load", _HOLD, ("timeout",), harmless=False, at_load=True),
    Attack(
        "ignores_its_end",
        f"import signal\nfor n in (14, 15, 24):\n    signal.signal(n, signal.SIG_IGN)\n{_HOLD}",
        ("timeout",),
        harmless=False,
    ),
    Attack(
        "catches_everything",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        ("timeout",),
        harmless=False,
    ),
    Attack("sleeps", "import time\ntime.sleep(10**6)", ("timeout",), harmless=False),
    Attack(
        "waits_for_its_own_questions",
        "import os\nfor fd in range(3, 32):\n    try: os.read(fd, 1)\n    except OSError: pass",
        ("timeout", "error"),
        harmless=False,
    ),
    Attack(
        "waits_for_a_lock",
        "import _thread\nlock = _thread.allocate_lock()\nlock.acquire()\nlock.acquire()",
        ("timeout",),
        harmless=False,
    ),
    Attack(
        "opens_many_files",
        "import os\nkept = [os.open(os.__file__, 0) for _ in range(100)]\nreturn DONE",
        harmless=False,
    ),
    Attack("answers_without_end", "return iter(int, 1)", harmless=False),
    Attack("answers_too_much", "return 'x' * 2**25", harmless=False),
    Attack(
        "answers_too_deeply",
        "x = []\nfor _ in range(10**5): x = [x]\nreturn x",
        ("error", "wrong", "timeout"),
        harmless=False,
    ),
    Attack("crashes", "import ctypes\nctypes.string_at(0)", harmless=False),
)

_EQUAL = "class Equal{0}:\n    __eq__ = __bool__ = __len__ = __hash__ = lambda *_: True\n"
_LINES = """import os, struct
for fd in range(100):
    try: os.write(fd, MESSAGE)
    except OSError: pass
"""
_VERDICT = """b'{}\\n{"status": "success", "detail": ""}\\n'"""
_ANSWER = "b'[\"returned\", 0, null]'"
FORGERIES = (
    Attack("exits_with_0", "import os\nos._exit(0)", ("error",), at_load=True),
    Attack("exits_with_96", "import os\nos._exit(96)", ("error",), at_load=True),
    Attack("leaves_with_0", "import sys\nsys.exit(0)", ("error",), at_load=True),
    Attack("leaves_when_asked", "import sys\nsys.exit(0)", ("error",)),
    Attack("exits_when_asked", "import os\nos._exit(0)", ("error",)),
    Attack("is_equal_to_all", _EQUAL.format("") + "return Equal()", ("wrong",)),
    Attack("is_a_number_equal_to_all", _EQUAL.format("(int)") + "return Equal()", ("wrong",)),
    Attack("is_a_text_equal_to_all", _EQUAL.format("(str)") + "return Equal()", ("wrong",)),
    Attack("is_a_list_equal_to_all", _EQUAL.format("(list)") + "return Equal([1])", ("wrong",)),
    Attack("lies_about_its_class", _EQUAL.format("") + "Equal.__class__ = str\nreturn Equal()"),
    Attack(
        "patches_builtins",
        "import builtins\nfor n in ('len', 'all', 'any', 'abs', 'isinstance', 'sorted'):\n"
        "    setattr(builtins, n, lambda *a, **k: True)\nreturn 1",
    ),
    Attack(
        "patches_assertions", "import builtins\nbuiltins.AssertionError = type(None)\nreturn 1", ("wrong",)
    ),
    Attack("patches_modules", "import math, random, json\njson.dumps = json.loads = lambda *a: {}\nreturn 1"),
    Attack("replaces_the_check", "check = lambda *a: None\ncandidate = check", ("wrong",), at_load=True),
    Attack("traces_lines", "import sys\nsys.settrace(lambda *a: None)\nreturn 1", ("wrong",)),
    Attack(
        "leaves_an_exit_handler",
        "import atexit, os\natexit.register(os._exit, 0)\nraise ValueError",
        ("error",),
    ),
    Attack(
        "replaces_the_exception_hook",
        "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\n1 / 0",
        ("error",),
    ),
    Attack("raises_the_end_of_everything", "raise GeneratorExit", ("error",)),
    Attack("interrupts", "raise KeyboardInterrupt", ("error",)),
    Attack(
        "looks_for_the_tests_in_memory",
        "import gc, sys\nfound = [o for o in gc.get_objects() if isinstance(o, dict)]\n"
        "frame = sys._getframe()\nwhile frame:\n    found.append(frame.f_locals)\n    frame = frame.f_back\n"
        "for d in found:\n    for v in list(d.values()):\n"
        "        if isinstance(v, str) and 'EXPEC' + 'TED' in v: return DONE",
        ("wrong",),
    ),
    Attack(
        "reads_the_tests",
        "import os\nfor fd in range(64):\n    try:\n"
        "        if b'EXPEC' + b'TED' in os.pread(fd, 10**6, 0): return DONE\n    except OSError: pass",
        ("wrong",),
    ),
    Attack(
        "reads_what_was_open",
        "import os\nfor fd in range(1024):\n    try:\n"
        "        if os.pread(fd, 100, 0).decode() == KEPT: return DONE\n    except OSError: pass",
        ("wrong",),
    ),
    Attack("writes_a_verdict_everywhere", _LINES.replace("MESSAGE", _VERDICT), harmless=False),
    Attack(
        "writes_answers_everywhere",
        _LINES.replace("MESSAGE", f"struct.pack('>I', len({_ANSWER})) + {_ANSWER}"),
        harmless=False,
    ),
    Attack("writes_a_length_alone", _LINES.replace("MESSAGE", "bytes([255]) * 9"), harmless=False),
)

ATTACKS = (*FILES, *NETWORK, *PROCESSES, *KERNEL, *BOUNDS, *FORGERIES)
