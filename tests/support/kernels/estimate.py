"""How well a kernel's main loop keeps the tensor cores busy, estimated from its SASS: no GPU, no clock.

The loop is walked instruction by instruction as one block of warps in lockstep executes it. HGMMA queues work
for the tensor cores and returns; other instructions take their unit's cycles; WARPGROUP.DEPBAR waits for the
tensor cores, SYNCS for a TMA load issued a few iterations before, and whatever reads a register for the load
that fills it. What runs between the issue of a product and the wait for it is off the critical path. Several
blocks on one multiprocessor fill each other's gaps, ideally.

A figure to compare configurations with, not a prediction: the bandwidth of the L2 cache, bank conflicts,
chains of dependent instructions, barriers, prologue, tail and the clock under load are not in it.
"""

from __future__ import annotations

import collections
import re
from dataclasses import dataclass

PEAK_TFLOPS = 989.0  # an H100 whose tensor cores never wait
_WARM_UP = 8  # iterations before the one that counts
GLOBAL_CYCLES = 400  # of a plain load
LOAD_CYCLES = 800  # from the issue of a TMA load to its data, out of the L2 cache
_SHARED, _REGISTERS, _WARPS = 233_472, 65_536, 64  # of one multiprocessor
_RESERVED = 1024  # bytes of shared memory that the system takes for a block
_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][A-Z0-9_]*)([^;]*);")
_TARGET = re.compile(r"(0x[0-9a-f]+)\s*$")
_REGISTER = re.compile(r"\bR\d+")
_BARRIER = re.compile(r"\[[^\]]*?(?:\+(0x[0-9a-f]+))?\]")
_PRODUCT = re.compile(r"\.64x(\d+)x\d+")
_LEFT_IN_REGISTERS = re.compile(r"R\d+, R\d+, gdesc")

# Cycles that a warp's instruction keeps its unit, on each of the four partitions of a multiprocessor.
_SPECIAL = "MUFU"
_SHARED_MEMORY = "LDS STS LDSM STSM SHFL LDG STG LDGSTS ATOMG ATOMS RED"
_HALF_RATE = (
    "IADD3 LOP3 ISETP FSETP FSEL SEL FMNMX F2FP SHF LEA PRMT PLOP3 VIADD IMNMX VIMNMX IMAD I2FP R2UR SGXT"
    " VOTE HADD2 HMUL2 HFMA2"
)
_UNITS = {"mufu": (8, _SPECIAL), "shared": (4, _SHARED_MEMORY), "alu": (2, _HALF_RATE)}
_UNIT = {name: (unit, cycles) for unit, (cycles, names) in _UNITS.items() for name in names.split()}


@dataclass(frozen=True)
class Instruction:
    """One line of SASS."""

    address: int
    predicate: str
    name: str
    rest: str  # modifiers and operands

    @property
    def target(self) -> int | None:
        """Return where a branch goes."""
        found = _TARGET.search(self.rest) if self.name == "BRA" else None
        return int(found[1], 16) if found else None

    @property
    def tensor_cycles(self) -> int:
        """Return how long a product of one warpgroup keeps the tensor cores."""
        return self._columns // 2

    @property
    def product_cycles(self) -> int:
        """Return the same where shared memory is slower than the tensor cores: 128 bytes per cycle."""
        left = 16 if re.search(r"R\d+, gdesc", self.rest) and not _LEFT_IN_REGISTERS.search(self.rest) else 0
        return max(self.tensor_cycles, left + self._columns // 4) if self._columns else 0

    @property
    def _columns(self) -> int:
        found = _PRODUCT.search(self.rest) if self.name == "HGMMA" else None
        return int(found[1]) if found else 0

    @property
    def registers(self) -> list[str]:
        """Return the registers it names, its result first."""
        return _REGISTER.findall(self.rest)

    @property
    def barrier(self) -> str:
        """Return the part of a barrier's address that tells one array of barriers from another."""
        found = _BARRIER.search(self.rest)
        return found[1] or "" if found else ""


@dataclass(frozen=True)
class Estimate:
    """One iteration of the main loop, all warps of a block together."""

    tensor: int  # cycles of the tensor cores
    other: int  # cycles of the busiest other unit, or of issue
    overlapped: int  # percent of the other work that runs while products do
    cycles: int  # of an iteration, alone on a multiprocessor
    barriers: int  # of all warps
    waits: int  # for memory
    blocks: int  # on a multiprocessor
    bound_tflops: int  # of all products, by this count


def parse(sass: str) -> list[Instruction]:
    """Read the instructions of a disassembled kernel."""
    return [
        Instruction(int(address, 16), predicate, name, rest)
        for address, predicate, name, rest in _LINE.findall(sass)
    ]


def estimate(sass: str, *, warps: int, registers: int, shared: int, stages: int) -> Estimate | None:
    """Return the estimate of the loop that does most products per cycle, or None without such a loop."""
    found = [_of_loop(body, warps, registers, shared, stages) for body in _product_loops(parse(sass))]
    return max(found, key=lambda one: (one.tensor / one.cycles, one.tensor), default=None)


def _product_loops(code: list[Instruction]) -> list[list[Instruction]]:
    """Return the bodies of the innermost loops with wgmma."""
    ends = [(i.target, i.address) for i in code if i.target is not None and i.target < i.address]
    bodies = []
    for begin, end in ends:
        if not any((b, e) != (begin, end) and begin <= b and e <= end for b, e in ends):
            body = [i for i in code if begin <= i.address <= end]
            if any(i.tensor_cycles for i in body):
                bodies.append(_usual_path(body))
    return bodies


def _usual_path(body: list[Instruction]) -> list[Instruction]:
    """Leave out what a branch inside the loop jumps over, unless it has products: masks of the edges."""
    path, resume = [], 0
    for index, one in enumerate(body):
        if one.address < resume:
            continue
        path.append(one)
        if one.target and one.predicate and one.address < one.target <= body[-1].address:
            skipped = [i for i in body[index + 1 :] if i.address < one.target]
            if not any(i.tensor_cycles for i in skipped):
                resume = one.target
    return path


class _Clock:
    """The time of a block, that of the tensor cores, and what the other units still have to do."""

    def __init__(self, warps: int, stages: int) -> None:
        self.now = self.tensor_free = self.tensor = self.product = self.other = self.hidden = 0.0
        self._per_partition = warps / 4
        self._ahead = max(stages - 1, 1)  # iterations between the issue of a load and the wait for it
        self._pending: collections.Counter[str] = collections.Counter()
        self._loads: dict[str, list[float]] = collections.defaultdict(list)
        self._waited: collections.Counter[str] = collections.Counter()
        self._barrier = ""
        self._arrives: dict[str, float] = {}  # by register, what a plain load brings

    def step(self, one: Instruction) -> None:
        """Execute an instruction."""
        self._wait_for_registers(one)
        unit, cycles = _UNIT.get(one.name, ("issue", 0))
        self._pending["issue"] += 1
        self._pending[unit] += cycles
        if one.tensor_cycles:
            self._settle()
            self.tensor += one.tensor_cycles * self._per_partition
            took = one.product_cycles * self._per_partition
            self.product += took
            self.tensor_free = max(self.tensor_free, self.now) + took
        elif one.name == "WARPGROUP" and "DEPBAR" in one.rest:
            self._settle()
            self.now = max(self.now, self.tensor_free)
        elif one.name == "SYNCS" and "ARRIVE" in one.rest:
            self._barrier = one.barrier
        elif one.name == "UTMALDG":
            self._settle()
            self._loads[self._barrier].append(self.now)
        elif one.name == "SYNCS" and "PHASECHK" in one.rest:
            self._settle()
            self._wait_for_load(one.barrier)
        elif one.name == "LDG":
            self._settle()
            first, number = one.registers[0], 2 if ".64" in one.rest else 4 if ".128" in one.rest else 1
            self._arrives |= {f"R{int(first[1:]) + i}": self.now + GLOBAL_CYCLES for i in range(number)}

    def _wait_for_registers(self, one: Instruction) -> None:
        needed = [self._arrives.pop(name) for name in one.registers if name in self._arrives]
        if needed:
            self._settle()
            self.now = max(self.now, *needed)

    def _wait_for_load(self, barrier: str) -> None:
        issued = self._waited[barrier] - self._ahead
        self._waited[barrier] += 1
        if 0 <= issued < len(self._loads[barrier]):
            self.now = max(self.now, self._loads[barrier][issued] + LOAD_CYCLES)

    def _settle(self) -> None:
        """Let the units finish what was issued."""
        took = max(self._pending.values(), default=0) * self._per_partition
        self.hidden += min(took, max(0.0, self.tensor_free - self.now))
        self.other += took
        self.now += took
        self._pending.clear()


def _of_loop(body: list[Instruction], warps: int, registers: int, shared: int, stages: int) -> Estimate:
    clock = _Clock(warps, stages)
    for _ in range(_WARM_UP):
        for one in body:
            clock.step(one)
    before = (clock.now, clock.tensor, clock.product, clock.other, clock.hidden)
    for one in body:
        clock.step(one)
    after = (clock.now, clock.tensor, clock.product, clock.other, clock.hidden)
    cycles, tensor, product, other, hidden = (b - a for a, b in zip(before, after, strict=True))
    blocks = _blocks(warps, registers, shared)
    per_block = max(product, other, cycles / blocks)
    return Estimate(
        tensor=round(tensor),
        other=round(other),
        overlapped=round(100 * hidden / other),
        cycles=round(cycles),
        barriers=sum(i.name == "BAR" for i in body),
        waits=sum(i.name == "SYNCS" and "PHASECHK" in i.rest for i in body),
        blocks=blocks,
        bound_tflops=round(PEAK_TFLOPS * tensor / per_block),
    )


def _blocks(warps: int, registers: int, shared: int) -> int:
    """Return how many blocks fit on a multiprocessor."""
    of_a_warp = -(-registers * 32 // 256) * 256
    return min(_REGISTERS // (of_a_warp * warps), _SHARED // (shared + _RESERVED), _WARPS // warps)
