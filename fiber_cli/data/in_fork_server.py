"""What only the server imports that workers are forked from, see `fork_server`: it has nothing to put in order at its
end, and what it has imported would take a second to take down, for which the reader of a pipe would wait."""

import atexit
import os
import sys

if sys.orig_argv[-2:-1] == ["-c"] and "multiprocessing.forkserver" in sys.orig_argv[-1]:
    atexit.register(os._exit, 0)
