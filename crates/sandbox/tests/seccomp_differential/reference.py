"""Compiles seccomp rules with libseccomp, the library that runc uses.

Reads {"names": [..], "jobs": [{"arches": [..], "rules": [..]}, ..]} from standard input and
writes {"numbers": {arch: {name: number}}, "programs": [hex, ..]} to standard output. Exits with
77 when libseccomp.so.2 cannot be loaded. Needs the shared library only, no headers.
"""

import ctypes
import json
import sys
import tempfile

ARCHES = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028}
OPERATORS = {"LT": 2, "EQ": 4, "GT": 6, "MASKED_EQ": 7}
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NO_SUCH_CALL = -1


class Comparison(ctypes.Structure):
    _fields_ = [
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


try:
    library = ctypes.CDLL("libseccomp.so.2")
except OSError as error:
    print(error, file=sys.stderr)
    sys.exit(77)
library.seccomp_init.restype = ctypes.c_void_p
library.seccomp_init.argtypes = [ctypes.c_uint32]
library.seccomp_release.argtypes = [ctypes.c_void_p]
library.seccomp_arch_native.restype = ctypes.c_uint32
library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
library.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
library.seccomp_arch_exist.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
library.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
library.seccomp_rule_add_array.argtypes = [
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.POINTER(Comparison),
]
library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]


def check(result, what):
    if result < 0:
        sys.exit(f"libseccomp: {what}: error {result}")


def compile_job(job):
    context = library.seccomp_init(ERRNO | 1)
    wanted = [ARCHES[arch] for arch in job["arches"]]
    for token in wanted:
        if library.seccomp_arch_exist(context, token) != 0:
            check(library.seccomp_arch_add(context, token), "arch_add")
    native = library.seccomp_arch_native()
    if native not in wanted:
        check(library.seccomp_arch_remove(context, native), "arch_remove")
    for rule in job["rules"]:
        action = ALLOW if rule["errno"] is None else ERRNO | rule["errno"]
        comparisons = (Comparison * len(rule["args"]))(
            *[Comparison(i, OPERATORS[op], a, b) for i, op, a, b in rule["args"]]
        )
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number != NO_SUCH_CALL:
                result = library.seccomp_rule_add_array(
                    context, action, number, len(comparisons), comparisons
                )
                check(result, name)
    with tempfile.TemporaryFile() as file:
        check(library.seccomp_export_bpf(context, file.fileno()), "export_bpf")
        file.seek(0)
        program = file.read()
    library.seccomp_release(context)
    return program.hex()


request = json.load(sys.stdin)
numbers = {
    arch: {
        name: library.seccomp_syscall_resolve_name_arch(token, name.encode())
        for name in request["names"]
    }
    for arch, token in ARCHES.items()
}
json.dump({"numbers": numbers, "programs": list(map(compile_job, request["jobs"]))}, sys.stdout)
