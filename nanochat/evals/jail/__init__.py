"""Model-written code: run in a jail, and judged outside of it.

A judgement has three processes. The evaluator (`judging`) starts a launcher, the launcher forks the program's
process and becomes its checker. The checker runs the problem's own tests in an interpreter that has never run
model-written code, and calls the program's functions over a pipe: plain data goes there, plain data comes
back (`plain_data`). What the program does to its own interpreter, with its exit code, or to its descriptors
can therefore make answers wrong but no verdict right, and the tests are never in its memory.

The jail (`confinement`) leaves the program one thread of one process with bounded memory and processor time
that can read the interpreter's own modules and write nothing: no files, network, processes, signals or
environment. On Linux it is built of namespaces, Landlock and seccomp, or of the last two where namespaces of
users are forbidden (`levels`). There a program can still see by `stat` that a path exists, since Landlock
does not hide names; with namespaces other paths are not there at all. On macOS, where the system bounds no
address space, memory is not bounded.

What upstream, which runs program and tests in one interpreter, judges differently:

- A program that forges its verdict passes there and fails here.
- A program that writes files, or starts threads, processes or an event loop, fails here.
- Results are compared as plain data: instances of subclasses as the built-in type below them, iterators as an
  iterator over their elements; an object of the program's own class equals nothing, but tests can go through
  its elements. Objects that arrive twice arrive as two; what a call changes in its arguments is changed at
  the first level alone.
- A test that uses a function of the prompt uses the prompt's own text of it, if the program defines it.
- Five seconds of processor time here are five of the wall clock there.
"""
