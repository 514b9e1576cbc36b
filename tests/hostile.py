"""Programs that mean harm. Each prints ESCAPED, or leaves a trace outside, where it gets what it wants."""

from __future__ import annotations

FIND = """
import gc, os, sys, types
def forge():
    '''Look for the word wherever Python code can look, say it, and leave.'''
    seen, todo, found = set(), [*gc.get_objects(), *sys._current_frames().values()], []
    while todo:
        one = todo.pop()
        if id(one) in seen or one is todo or one is seen: continue
        seen.add(id(one))
        if type(one) is bytes and len(one) == 32 and len(set(one)) > 24: found.append(one)
        if isinstance(one, types.GeneratorType): todo.append(one.gi_frame)
        if isinstance(one, types.FrameType): todo += [one.f_back, *one.f_locals.values()]
        if isinstance(one, types.TracebackType): todo.append(one.tb_frame)
        todo += gc.get_referents(one)
    for word in found: os.write(3, word)
    os._exit(0)
"""
JUMP = """
import sys
def tracer(frame, event, arg):
    lines = [line for _, _, line in frame.f_code.co_lines() if line]
    if event == "line" and frame.f_lineno < max(lines): frame.f_lineno = max(lines)
    return tracer
"""
START = "sys.settrace(tracer)\nsys._getframe().f_trace = tracer\n"
MONITOR = """
import sys
def line(code, number):
    lines = [line for _, _, line in code.co_lines() if line]
    if code.co_filename == "program.py" and code.co_name == "<module>": sys._getframe(1).f_lineno = max(lines)
m = sys.monitoring  # Since 3.12.
m.use_tool_id(3, "x")
m.register_callback(3, m.events.LINE, line)
m.set_events(3, m.events.LINE)
"""
C = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
TRY = "def attempt(do):\n  try: do()\n  except OSError as error: print(error)\n  else: print('ESCAPED')\n"

OUTSIDE = {
    "read a file of the user": "print(open('@FOLDER/secret').read())",
    "read it by a link": "import os\nos.symlink('@FOLDER/secret', 'x')\nprint(open('x').read())",
    "read it through /proc": "print(open('/proc/1/root@FOLDER/secret').read())",
    "read it from /proc/self/cwd": "import os\nos.chdir('/proc/1/cwd')\nprint(os.listdir('.'), open('secret').read())",
    "read the home folder": "import os\nprint(os.listdir('@HOME'))\nassert not os.listdir('@HOME')",
    "read the temporary folder": "import os\nassert '@NAME' not in os.listdir('/tmp')",
    "read /run and /var": "import os\nassert not os.path.exists('/run') and not os.path.exists('/var')",
    "read /etc/passwd": "assert 'root' not in open('/etc/passwd').read()",
    "the parent's environment": "print(open('/proc/@PARENT/environ').read())",
    "every environment": (
        "import os\nfor p in os.listdir('/proc'):\n  if p.isdigit():\n    try: print(open(f'/proc/{p}/environ').read())\n"
        "    except OSError: pass"
    ),
    "other processes": "import os\nassert len([p for p in os.listdir('/proc') if p.isdigit()]) < 4, print('ESCAPED')",
    "write": "open('@FOLDER/w', 'w')",
    "write with a patched guard": "import __main__\n__main__._WRITES = 0\nopen('@FOLDER/w', 'w').write('x')",
    "write by dir_fd": (
        "import os\nd = os.open('@FOLDER', os.O_RDONLY)\nos.write(os.open('w', os.O_WRONLY | os.O_CREAT, dir_fd=d), b'x')"
    ),
    "remove by dir_fd": "import os\nd = os.open('@FOLDER', os.O_RDONLY)\nos.remove('victim', dir_fd=d)",
    "write by sqlite3": "import sqlite3\nc = sqlite3.connect('@FOLDER/w')\nc.execute('create table a(b)')\nc.commit()",
    "write by ctypes": C + "f = libc.open(b'@FOLDER/w', 65, 0o644)\nlibc.write(f, b'x', 1)",
    "named pipe": "import os\nos.mkfifo('@FOLDER/w')",
    "write by a shell": (
        "import _posixsubprocess as p, os\nr, w = os.pipe()\np.fork_exec([b'/bin/sh', b'-c', b'echo x > @FOLDER/w'], "
        "[b'/bin/sh'], True, (), None, None, -1, -1, -1, -1, -1, -1, r, w, False, False, 0, None, None, None, -1, None, "
        "True)\nimport time\ntime.sleep(1)"
    ),
    "write to the system": "import os, sys\n" + TRY + "for path in ('/usr/w', '/w', '/dev/w', '/etc/w', os.__file__, "
    "*sys.path): attempt(lambda: open(path if path.endswith('.py') else path + '/w', 'a'))",
    # Opened, never written to: as root the files of /proc are the machine's own.
    "write to the kernel": "import os\n" + TRY + "for top, _, names in os.walk('/proc'):\n"
    "  for name in names:\n    path = top + '/' + name\n"
    "    if 'task' not in path and '/fd/' not in path: attempt(lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)))",
    "open devices": TRY + "for path in ('/dev/mem', '/dev/kmsg', '/dev/vda', '/dev/sda', '/dev/fuse', '/dev/kvm'): "
    "attempt(lambda: open(path, 'rb'))",
    "device node": "import os\n" + TRY + "attempt(lambda: os.mknod('m', 0o020666, os.makedev(1, 1)))",
    "TCP": "import socket\nsocket.create_connection(('127.0.0.1', @PORT))",
    "TCP with a patched guard": "import __main__, socket\n__main__._NETWORK = ()\n"
    "socket.create_connection(('127.0.0.1', @PORT))",
    "UDP": "import socket\n"
    + TRY
    + "attempt(lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53)))",
    "interfaces": "import socket\nassert [name for _, name in socket.if_nameindex()] == ['lo'], print('ESCAPED')",
    "unix socket": "import socket\nsocket.socket(socket.AF_UNIX).connect('@FOLDER/socket')",
    "abstract unix socket": "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0judge-@NAME')",
    "fork": "import os\nos.fork()\nprint('ESCAPED')",
    "fork with a patched guard": "import __main__, os\n__main__._PROCESSES = ()\nos.fork()\nprint('ESCAPED')",
    "vfork, clone, clone3": C + "for number in @FORKS:\n"
    "  pid = libc.syscall(number, 17, 0, 0, 0, 0)\n  if pid == 0: libc._exit(0)\n  if pid > 0: print('ESCAPED')",
    "subprocess": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''])\nprint('ESCAPED')",
    "multiprocessing": "import multiprocessing as m\np = m.Process(target=print)\np.start()\nprint('ESCAPED')",
    "posix_spawn": "import os\nos.posix_spawn('/bin/sh', ['sh', '-c', ':'], {})\nprint('ESCAPED')",
    "60 forks": (
        "import os, time\nfor i in range(60):\n  if os.fork() == 0:\n    time.sleep(3)\n    os._exit(0)\nprint('ESCAPED')"
    ),
    "kill the parent": "import os\nos.kill(@PARENT, 0)\nprint('ESCAPED')",
    "kill the parent by pidfd": (
        "import os, signal\nsignal.pidfd_send_signal(os.pidfd_open(@PARENT), 0)\nprint('ESCAPED')"
    ),
    "kill everybody": "import os\nos.kill(-1, 9)",
    "kill the group": "import os\nos.killpg(0, 9)",
    "survivor: session": (
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  time.sleep(3)\n  open('@FOLDER/late', 'w')\n  os._exit(0)"
    ),
    "survivor: prctl": C + "import time\nlibc.prctl(1, 0)\nattempt = lambda: os.setsid()\ntry: attempt()\n"
    "except OSError: pass\ntime.sleep(4)\nopen('@FOLDER/late', 'w')",
    "user namespace": C + "print('held' if libc.unshare(0x10000000) else 'ESCAPED')",
    "mount": C + "print('held' if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) else 'ESCAPED')",
    "chroot": "import os\n" + TRY + "attempt(lambda: os.chroot('/tmp'))",
    "become root": "import os\n" + TRY + "attempt(lambda: os.setuid(0))",
    "trace process 1": C + "print('held' if libc.ptrace(16, 1, None, None) else 'ESCAPED')",
    "memory of process 1": TRY + "attempt(lambda: open('/proc/1/mem', 'r+b', buffering=0).write(b'x'))",
    "the kernel's keys": C + "print('held' if libc.syscall(@KEYCTL, 0, -3, 1) == -1 else 'ESCAPED')",
    "System V shared memory": C + "print('held' if libc.shmget(0, 2**20, 0o1600) == -1 else 'ESCAPED')",
    "memory files": "import os\n" + TRY + "attempt(lambda: os.memfd_create('x'))",
    "shared memory left behind": (
        "import _posixshmem, os\nf = _posixshmem.shm_open('/@NAME', os.O_CREAT | os.O_RDWR, 0o600)\n"
        "os.ftruncate(f, 4 * 2**20)"
    ),
    "terminal": "import fcntl, termios\n"
    + TRY
    + "attempt(lambda: fcntl.ioctl(open('/dev/tty'), termios.TIOCSTI, b'x'))",
}

BOUNDS = {
    "3 GiB": "x = bytearray(3 * 2**30)\nprint('ESCAPED')",
    "twice 700 MiB by forks": (
        "import os, time\nfor i in range(2):\n  if os.fork() == 0:\n    x = bytearray(700 * 2**20)\n    print('ESCAPED')\n"
        "    os._exit(0)\nos.wait()\nos.wait()"
    ),
    "40 files of 8 MiB": "for i in range(40): open(f'f{i}', 'wb').write(bytes(8 * 2**20 - 1))\nprint('ESCAPED')",
    "40 files in shared memory": (
        "for i in range(40): open(f'/dev/shm/f{i}', 'wb').write(bytes(8 * 2**20 - 1))\nprint('ESCAPED')"
    ),
    "one file of 9 MiB": "open('f', 'wb').write(bytes(9 * 2**20))\nprint('ESCAPED')",
    "100 open files": "files = [open('/dev/null') for _ in range(100)]\nprint('ESCAPED')",
    "lift the limits": "import resource as r\nr.setrlimit(r.RLIMIT_AS, (2**32, 2**32))\nprint('ESCAPED')",
    "output without end": "while True: print('x' * 10000)",
    "output to the verdict without end": "import os\nwhile True: os.write(3, b'x' * 10000)",
    "ignored signals": (
        "import signal\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, ValueError): "
        "pass\nwhile 1: pass"
    ),
    "stopped": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "closed descriptors, asleep": "import os, time\nos.closerange(0, 64)\ntime.sleep(60)",
    "a thread that never ends": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()",
    "an exit handler that never ends": "import atexit, time\natexit.register(time.sleep, 60)",
    "named pipe that nobody writes": "import os\nos.mkfifo('x')\nopen('x')",
}
"""They are stopped, or not allowed; none passes."""

FORGED = {
    "leave": "import sys\nsys.exit(0)",
    "leave at once": "import os\nos._exit(0)",
    "leave by a signal": "import signal, os\nsignal.signal(15, lambda *a: os._exit(0))\nos.kill(os.getpid(), 15)",
    "another program": "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', ''])",
    "crash": "import ctypes\nctypes.string_at(0)",
    "abort": "import os\nos.abort()",
    "find the word": FIND + "forge()",
    "find it in a traceback": FIND + "try: 1 / 0\nexcept ZeroDivisionError: forge()",
    "find it in an exception hook": FIND + "sys.excepthook = lambda *a: forge()\n1 / 0",
    "find it in an exit handler": FIND + "import atexit\natexit.register(forge)\n1 / 0",
    "find it in a destructor": FIND + "class X:\n  __del__ = lambda self: forge()\nx = X()\n1 / 0",
    "find it in a thread": FIND + "import threading\nthreading.Thread(target=forge).start()\nthreading.Event().wait()",
    "find it in a handler": FIND
    + "import signal\nsignal.signal(14, lambda *a: forge())\nsignal.alarm(1)\nwhile 1: pass",
    "find it from the tests": FIND + "def f(): forge()\nf()",
    "find it with patched functions": FIND
    + "import builtins\nbuiltins.max = builtins.callable = lambda *a, **k: forge()\n"
    "os.write, write = (lambda *a: forge()), os.write\n1 / 0",
    "find it when the collector runs": FIND + "gc.callbacks.append(lambda *a: forge())\ngc.collect()",
    "word on the command line": "import os\nfor part in open('/proc/self/cmdline', 'rb').read().split(b'\\0'):\n"
    "  if len(part) in (32, 64): os.write(3, part)\nos._exit(0)",
    "word in a descriptor": "import os\nfor i in range(64):\n  try: os.set_blocking(i, False); word = os.read(i, 32)\n"
    "  except OSError: continue\n  os.write(3, word)\nos._exit(0)",
    "word in descriptors of process 1": "import os\nfor i in range(64):\n  try:\n    f = os.open(f'/proc/1/fd/{i}', "
    "os.O_RDONLY | os.O_NONBLOCK)\n    os.write(3, os.read(f, 32))\n  except OSError: pass\nos._exit(0)",
    "write to every descriptor": "import os\nfor i in range(64):\n  try: os.write(i, b'+passed')\n"
    "  except OSError: pass\nos._exit(0)",
    "jump": JUMP + START,
    "jump out of the driver": JUMP
    + "f = sys._getframe()\nwhile f: f.f_trace = tracer; f = f.f_back\nsys.settrace(tracer)\n",
    "jump without the hook": JUMP + "import __main__\n__main__.watch.__code__ = (lambda e, a: None).__code__\n"
    "sys.settrace(tracer)\nsys._getframe().f_trace = tracer\n",
    "jump with a new sys": JUMP + "import importlib\nimportlib.reload(sys).settrace(tracer)\n"
    "sys._getframe().f_trace = tracer\n",
    "jump by threading": JUMP
    + "import threading\nthreading.settrace(tracer)\nt = threading.Thread(target=print)\nt.start()\n"
    "t.join()\nsys._getframe().f_trace = tracer\n",
    "jump in all threads": "import threading\n" + JUMP + "threading.settrace_all_threads(tracer)\n" + START,
    "jump by monitoring": MONITOR,
    "other locals in the driver": "import sys\nf = sys._getframe()\nwhile f:\n  for name in list(f.f_locals):\n"
    "    if name in ('step', 'code', 'key'): f.f_locals[name] = lambda *a: 0\n  f = f.f_back",
    "other code in the driver": "import __main__\n__main__.take.__code__ = (lambda step: 0).__code__\nassert False",
    "other names in the driver": "import __main__, os\n__main__.os = __main__.partial = __main__.max = None\nassert False",
    "an exception that is equal to all": "class E(BaseException):\n  __eq__ = __lt__ = __gt__ = lambda *a: True\nraise E",
    "end before the tests": "'''",
    "no text: NUL": "x = 1\0\n",
    "no text: half a pair": "x = '\ud800'\n",
    "another encoding": "# coding: punycode\nx = 1",
    "parentheses": "(" * 100_000,
    "recursion": "f = lambda: f()\nf()",
}
"""None passes; each has a test behind it that fails."""

CLUMSY = {
    "remove 'printed'": "import os\nos.remove('printed')",
    "remove all files": "import os\nfor f in os.listdir('.'): os.remove(f)",
    "remove the folder": "import os, shutil\nshutil.rmtree(os.getcwd())",
    "'printed' a link": "import os\nos.symlink('@FOLDER/secret', 'printed')",
    "'printed' a link by ctypes": C + "libc.symlink(b'@FOLDER/secret', b'printed')",
    "'printed' a named pipe": "import os\nos.mkfifo('printed')",
    "'finished' a link to a big file": "import os\nos.symlink('@FOLDER/big', 'finished')",
    "'finished' a folder": "import os\nos.mkdir('finished')",
    "folder without rights": "import os\nos.chmod('.', 0)",
    "deep folders": "import os\nfor _ in range(3000):\n  os.mkdir('d')\n  os.chdir('d')",
    "closed descriptors": "import os\nos.closerange(0, 64)",
    "closed output": "import sys\nsys.stdout.close()\nsys.stderr.close()",
    "output that is no text": "import os\nos.write(1, bytes(range(256)) * 9)",
    "long": "x = '" + "a" * 20_000_000 + "'",
    "ordinary": "assert 1 + 1 == 2",
    "no tests of their own": "import builtins\nbuiltins.AssertionError = Exception",
}
"""They may pass or not; what counts is that nothing outside suffers."""
