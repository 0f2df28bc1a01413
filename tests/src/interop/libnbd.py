"""Every method of libnbd's handle against one server.

usage: libnbd.py URI ANOTHER-WAY... (name=value: unix=, tcp=, command=, activation=, nbds=, certificates=)
The export is writable, at least 16 MiB, and nobody else's. Prints a line per method: its name, a tab, and
`ok`, `not in this libnbd`, or `FAIL` and why.
"""

import errno
import json
import socket
import sys

import nbd

URI = sys.argv[1]
WAYS = dict(argument.split("=", 1) for argument in sys.argv[2:])
SIZE = 16 << 20
BLOCK = 64 << 10


class Missing(Exception):
    """This libnbd is too old for it."""


def connected(uri=URI, **settings):
    h = nbd.NBD()
    for name, value in settings.items():
        getattr(h, "set_" + name)(value)
    h.connect_uri(uri)
    return h


def with_contexts(*names):
    h = nbd.NBD()
    for name in names:
        h.add_meta_context(name)
    h.connect_uri(URI)
    return h


def haggling(uri=URI):
    return connected(uri, opt_mode=True)


def finish(h, cookie):
    while not h.aio_command_completed(cookie):
        h.poll(10_000)


def refused(code, call, *arguments):
    """The call must fail with this error."""
    try:
        call(*arguments)
    except nbd.Error as error:
        assert error.errnum == code, f"{error.string}: {error.errno} instead of {errno.errorcode[code]}"
        return
    raise AssertionError(f"succeeded instead of {errno.errorcode[code]}")


def pattern(n):
    return bytes(bytearray((i * n) % 251 for i in range(BLOCK)))


# Ways to connect.


def connect_uri():
    assert connected().get_size() >= SIZE


def connect_unix():
    h = nbd.NBD()
    h.set_export_name(WAYS["export"])
    h.connect_unix(WAYS["unix"])
    assert h.get_size() >= SIZE and h.get_protocol() == "newstyle-fixed"


def connect_tcp():
    h = nbd.NBD()
    h.set_export_name(WAYS["export"])
    h.connect_tcp("127.0.0.1", WAYS["tcp"])
    assert h.get_size() >= SIZE


def connect_socket():
    s = socket.socket(socket.AF_UNIX)
    s.connect(WAYS["unix"])
    h = nbd.NBD()
    h.set_export_name(WAYS["export"])
    h.connect_socket(s.detach())
    assert h.get_size() >= SIZE


def aio_connect():
    h = nbd.NBD()
    h.set_export_name(WAYS["export"])
    h.aio_connect_unix(WAYS["unix"])
    while h.aio_is_connecting():
        h.poll(10_000)
    assert h.aio_is_ready() and h.get_size() >= SIZE


def connect_command():
    h = nbd.NBD()
    h.connect_command(json.loads(WAYS["command"]))
    assert h.pread(512, 0) == bytes(512)
    h.shutdown()


def connect_systemd_socket_activation():
    h = nbd.NBD()
    h.connect_systemd_socket_activation(json.loads(WAYS["activation"]))
    assert h.pread(512, 0) == bytes(512)
    h.shutdown()


# The handshake.


def opt_list():
    h, names = haggling(), []
    h.opt_list(lambda name, description: names.append(name))
    assert WAYS["export"] in names, names
    h.opt_abort()


def opt_info():
    h = haggling()
    h.opt_info()
    size = h.get_size()
    h.set_export_name("no such export")
    refused(errno.ENOENT, h.opt_info)
    h.set_export_name(WAYS["export"])
    h.opt_info()
    assert h.get_size() == size and h.can_flush()
    h.opt_go()
    assert h.get_size() == size


def opt_go():
    h = haggling()
    h.set_export_name("no such export")
    refused(errno.ENOENT, h.opt_go)
    h.set_export_name(WAYS["export"])
    h.opt_go()
    assert h.pread(512, 0)


def opt_abort():
    h = haggling()
    h.opt_abort()
    assert h.aio_is_closed()


def opt_list_meta_context():
    h, names = haggling(), []
    h.opt_list_meta_context(lambda name: names.append(name))
    assert "base:allocation" in names, names
    for query, wanted in [("base:", True), ("base:allocation", True), ("base:nothing", False), ("x-no:where", False)]:
        found = []
        h.clear_meta_contexts()
        h.add_meta_context(query)
        h.opt_list_meta_context(lambda name: found.append(name))
        assert (found == ["base:allocation"]) == wanted, (query, found)
    h.opt_abort()


def aio_opt():
    h, done = haggling(), []
    h.aio_opt_list(lambda name, description: 0, lambda error: done.append(error.value) or 1)
    while not done:
        h.poll(10_000)
    h.aio_opt_info(lambda error: done.append(error.value) or 1)
    while len(done) < 2:
        h.poll(10_000)
    h.aio_opt_go(lambda error: done.append(error.value) or 1)
    while len(done) < 3:
        h.poll(10_000)
    assert done == [0, 0, 0] and h.aio_is_ready(), done


def opt_starttls():
    h = nbd.NBD()
    if not hasattr(h, "opt_starttls"):
        raise Missing()
    h.opt_starttls()


def set_full_info():
    h = connected(full_info=True)
    assert h.get_canonical_export_name() == WAYS["export"]
    assert h.get_export_description() == WAYS["description"]


def get_block_size():
    h = connected()
    sizes = [h.get_block_size(n) for n in (nbd.SIZE_MINIMUM, nbd.SIZE_PREFERRED, nbd.SIZE_MAXIMUM)]
    assert sizes == [1, 4096, 32 << 20], sizes
    assert connected(request_block_size=False).get_size() >= SIZE


def set_handshake_flags():
    for flags in (0, nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE, nbd.HANDSHAKE_FLAG_NO_ZEROES, 3):
        assert connected(handshake_flags=flags).pread(512, 0)


def set_request_structured_replies():
    h = connected(request_structured_replies=False)
    assert not h.get_structured_replies_negotiated() and not h.can_df()
    assert h.pread(BLOCK, 0)
    assert connected().get_structured_replies_negotiated()


def set_request_extended_headers():
    h = nbd.NBD()
    if not hasattr(h, "set_request_extended_headers"):
        raise Missing()
    h.connect_uri(URI)
    assert h.get_extended_headers_negotiated()


def can():
    h = connected()
    for what in ("cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero"):
        assert getattr(h, "can_" + what)(), what
    assert not h.is_read_only() and not h.is_rotational()


def can_meta_context():
    h = with_contexts("base:allocation", "base:allocation", "x-no:where")
    assert h.can_meta_context("base:allocation") and not h.can_meta_context("x-no:where")
    assert not connected().can_meta_context("base:allocation")


# Commands.


def pwrite_pread():
    h = connected()
    for n, flags in enumerate((0, nbd.CMD_FLAG_FUA), start=3):
        h.pwrite(pattern(n), n * BLOCK, flags)
        assert h.pread(BLOCK, n * BLOCK) == pattern(n)
        h.pwrite(b"edge", n * BLOCK + 511, flags)
        assert h.pread(6, n * BLOCK + 510)[1:5] == b"edge"


def pread_structured():
    h = connected()
    h.pwrite(pattern(7), 0)
    h.zero(BLOCK, BLOCK)
    for flags in (0, nbd.CMD_FLAG_DF):
        pieces = []
        data = h.pread_structured(2 * BLOCK, 0, lambda data, at, kind, error: pieces.append((at, len(data), kind)), flags)
        assert data == pattern(7) + bytes(BLOCK), "other data"
        assert sum(length for _, length, _ in pieces) == 2 * BLOCK, pieces
        assert flags == 0 or len(pieces) == 1, pieces


def flush():
    h = connected()
    h.pwrite(pattern(5), 0)
    h.flush()


def trim():
    h = connected()
    for flags in (0, nbd.CMD_FLAG_FUA):
        h.pwrite(pattern(5), BLOCK)
        h.trim(BLOCK // 2, BLOCK, flags)
        assert h.pread(BLOCK // 2, BLOCK + BLOCK // 2) == pattern(5)[BLOCK // 2 :]


def zero():
    h = connected()
    for flags in (0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE):
        h.pwrite(pattern(9), BLOCK)
        h.zero(BLOCK - 10, BLOCK + 5, flags)
        data = h.pread(BLOCK, BLOCK)
        assert data == pattern(9)[:5] + bytes(BLOCK - 10) + pattern(9)[-5:], flags


def zero_fast():
    h = connected()
    h.pwrite(pattern(9), BLOCK)
    try:
        h.zero(BLOCK, BLOCK, nbd.CMD_FLAG_FAST_ZERO)
        assert h.pread(BLOCK, BLOCK) == bytes(BLOCK)
    except nbd.Error as error:
        assert error.errnum == errno.ENOTSUP, error.string
        assert h.pread(BLOCK, BLOCK) == pattern(9), "changed in spite of the error"


def cache():
    h = connected()
    h.cache(SIZE, 0)
    h.cache(1, SIZE - 1)


def block_status():
    h = with_contexts("base:allocation")
    h.zero(SIZE, 0)
    h.pwrite(pattern(3), 4 << 20)
    h.flush()
    seen = []

    def note(context, offset, entries, error):
        assert context == "base:allocation"
        seen.append((offset, list(zip(entries[::2], entries[1::2]))))

    at = 0
    extents = []
    while at < SIZE:
        h.block_status(SIZE - at, at, note)
        offset, entries = seen.pop()
        assert offset == at
        for length, status in entries:
            extents.append((at, length, status))
            at += length
    covering = [status for start, length, status in extents if start <= 4 << 20 < start + length]
    assert covering == [0], extents
    assert h.pread(512, 4 << 20) == pattern(3)[:512]
    h.block_status(SIZE, 0, note, nbd.CMD_FLAG_REQ_ONE)
    offset, entries = seen.pop()
    assert len(entries) == 1 and entries[0][0] <= SIZE, entries
    refused(errno.EINVAL, unchecked("base:allocation").block_status, 4096, 1 << 62, note)


def unchecked(*contexts):
    """A handle that sends what libnbd would refuse by itself."""
    h = nbd.NBD()
    for context in contexts:
        h.add_meta_context(context)
    h.set_strict_mode(0)
    h.connect_uri(URI)
    return h


def errors():
    h = unchecked()
    end = h.get_size()
    refused(errno.EINVAL, h.pread, 512, end)
    refused(errno.ENOSPC, h.pwrite, b"x" * 512, end)
    refused(errno.ENOSPC, h.zero, 512, end)
    refused(errno.EINVAL, h.trim, 512, end)
    refused(errno.EINVAL, h.cache, 512, end)
    refused(errno.EINVAL, h.pwrite, b"", 0)
    refused(errno.EINVAL, h.pwrite, b"x" * 512, 0, nbd.CMD_FLAG_NO_HOLE)
    refused(errno.EINVAL, h.block_status, 512, 0, lambda *_: 0)
    assert h.pread(512, 0), "the connection goes on"


def read_only():
    h = nbd.NBD()
    h.set_strict_mode(0)
    h.connect_uri(WAYS["read_only"])
    assert h.is_read_only()
    refused(errno.EPERM, h.pwrite, b"x" * 512, 0)
    refused(errno.EPERM, h.trim, 512, 0)
    refused(errno.EPERM, h.zero, 512, 0)
    assert h.pread(512, 0) == bytes(512)


# The same asynchronously, many at once.


def aio_pwrite_pread():
    h, buffers = connected(), []
    for cookie in [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(pattern(n + 1))), n * BLOCK) for n in range(64)]:
        finish(h, cookie)
    cookies = []
    for n in range(64):
        buffers.append(nbd.Buffer(BLOCK))
        cookies.append(h.aio_pread(buffers[n], n * BLOCK))
    assert h.aio_in_flight() > 0
    for cookie in cookies:
        finish(h, cookie)
    for n, buffer in enumerate(buffers):
        assert bytes(buffer.to_bytearray()) == pattern(n + 1), n


def aio_pread_structured():
    h, pieces = connected(), []
    buffer = nbd.Buffer(1 << 20)
    finish(h, h.aio_pread_structured(buffer, 0, lambda data, at, kind, error: pieces.append(len(data))))
    assert sum(pieces) == 1 << 20


def aio_commands():
    h = connected()
    for cookie in [h.aio_flush(), h.aio_trim(BLOCK, 0), h.aio_zero(BLOCK, BLOCK), h.aio_cache(BLOCK, 0)]:
        finish(h, cookie)


def aio_block_status():
    h, seen = with_contexts("base:allocation"), []
    finish(h, h.aio_block_status(SIZE, 0, lambda *arguments: seen.append(arguments)))
    assert len(seen) == 1


def multi_conn():
    handles = [connected() for _ in range(4)]
    assert all(h.can_multi_conn() for h in handles)
    for n, h in enumerate(handles):
        h.pwrite(pattern(n + 11), n * BLOCK)
        handles[(n + 1) % 4].flush()
        for other in handles:
            assert other.pread(BLOCK, n * BLOCK) == pattern(n + 11)


# The end.


def shutdown():
    h = connected()
    cookies = [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(pattern(n))), n * BLOCK) for n in range(1, 17)]
    h.shutdown()
    assert h.aio_is_closed()
    h = connected()
    for n in range(1, len(cookies) + 1):
        assert h.pread(BLOCK, n * BLOCK) == pattern(n), n


def aio_disconnect():
    h = connected()
    h.aio_disconnect()
    while not h.aio_is_closed():
        h.poll(10_000)


# TLS.


def tls():
    h = nbd.NBD()
    h.set_tls(nbd.TLS_REQUIRE)
    h.set_tls_certificates(WAYS["certificates"])
    h.connect_uri(WAYS["nbds"])
    assert h.get_tls_negotiated()
    h.pwrite(pattern(21), 0)
    assert h.pread(BLOCK, 0) == pattern(21)
    h.shutdown()


WANTS = {
    "connect_unix": "unix",
    "connect_socket": "unix",
    "aio_connect": "unix",
    "connect_tcp": "tcp",
    "connect_command": "command",
    "connect_systemd_socket_activation": "activation",
    "read_only": "read_only",
    "tls": "nbds",
}
METHODS = [
    connect_uri, connect_unix, connect_tcp, connect_socket, aio_connect, connect_command,
    connect_systemd_socket_activation, opt_list, opt_info, opt_go, opt_abort, opt_list_meta_context, aio_opt,
    opt_starttls, set_full_info, get_block_size, set_handshake_flags, set_request_structured_replies,
    set_request_extended_headers, can, can_meta_context, pwrite_pread, pread_structured, flush, trim, zero, zero_fast,
    cache, block_status, errors, read_only, aio_pwrite_pread, aio_pread_structured, aio_commands, aio_block_status,
    multi_conn, shutdown, aio_disconnect, tls,
]  # fmt: skip

for method in METHODS:
    name = method.__name__
    if WANTS.get(name, "export") not in WAYS:
        continue
    try:
        method()
        print(f"{name}\tok")
    except Missing:
        print(f"{name}\tnot in this libnbd")
    except Exception as problem:
        text = str(problem) or repr(problem)
        print(f"{name}\tFAIL {type(problem).__name__}: {' '.join(text.split())}")
