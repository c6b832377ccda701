#!/usr/bin/env python3
"""Holds parlor_client.py against protocol/vectors/*.json: PROTOCOL.md, "Your client is right if", "Bytes".

    python3 check_vectors.py [FOLDER]

Prints what was checked. Exits with 1 if anything differs.
"""
import json
import pathlib
import sys

import parlor_client as client
from parlor_client import Bad, Body, Choice, Enum, FROM_SERVER, Fixed, Int, KINDS, List, Option, Struct, encode, next_frame

FROM_CLIENT = {message.number: name for name, message in KINDS.items() if message.number % 2 == 0}
TYPES = {
    "bool": client.BOOL, "u16": client.U16, "u32": client.U32, "u64": client.U64, "string": client.STRING,
    "bytes": client.BYTES, "extensions": client.EXTENSIONS, "Network": client.NETWORK,
    "DeviceClass": client.DEVICE_CLASS, "Durability": client.DURABILITY, "Direction": client.DIRECTION,
    "JoinFrom": client.JOIN_FROM, "GapReason": client.U16, "Position": client.POSITION,
    "list of Position": List(client.POSITION, 1000),
}


def type_of(name):
    if name.startswith("option of "):
        return Option(type_of(name[len("option of "):]))
    if name.endswith(" bytes"):
        return Fixed(int(name.split()[0]))
    return TYPES[name]


def from_json(kind, value):
    """A value of the vectors, as the client holds it."""
    if isinstance(kind, Option):
        return None if value is None else from_json(kind.item, value)
    if isinstance(kind, List):
        return [from_json(kind.item, item) for item in value]
    if isinstance(kind, Struct):
        assert value.keys() == kind.fields.keys(), f"{list(value)} against {list(kind.fields)}"
        return {name: from_json(field, value[name]) for name, field in kind.fields.items()}
    if isinstance(kind, Choice):
        assert kind.names[value["number"]] == value["name"], value
        if isinstance(kind, Enum):
            return value["name"]
        variant = kind.variants[value["number"]]
        return (value["name"], *(from_json(field, value[name]) for name, field in zip(variant[1::2], variant[2::2])))
    if isinstance(kind, Int):                       # 64 bits are strings; a number with a name is an object
        return value["number"] if isinstance(value, dict) else int(value)
    return bytes.fromhex(value) if isinstance(kind, (Fixed, client.Bytes)) else value


def refuses(read, *arguments):
    try:
        read(*arguments)
    except Bad:
        return True
    return False


class Checks:
    def __init__(self):
        self.count, self.differences = 0, []

    def same(self, name, got, want):
        self.count += 1
        if got != want:
            self.differences.append(f"{name}\n  got  {got}\n  want {want}")


def check_frames(checks, vectors):
    """Every frame, from hex to fields and back."""
    stream, wanted = bytearray(), []
    for vector in vectors:
        name, data, kind = vector["name"], bytes.fromhex(vector["hex"]), KINDS[vector["kind"]]
        fields = from_json(Struct(**kind.fields), vector["fields"])
        want = (vector["kind"], vector["request"], fields)
        checks.same(f"{name}: number", kind.number, vector["number"])
        checks.same(f"{name}: decode", next_frame(bytearray(data), {kind.number: vector["kind"]}), want)
        checks.same(f"{name}: encode", encode(vector["kind"], vector["request"], **fields).hex(), data.hex())
        checks.same(f"{name}: half of it", next_frame(bytearray(data[:-1]), {kind.number: vector["kind"]}), None)
        if kind.number in FROM_SERVER:
            stream += data
            wanted.append(want)
    inbox, got = bytearray(), []
    for byte in stream:                             # a stream that arrives byte by byte
        inbox.append(byte)
        got.extend(filter(None, [next_frame(inbox)]))
    checks.same("byte by byte", got, wanted)
    checks.same("all in one read", list(iter(lambda: next_frame(stream), None)), wanted)


def check_types(checks, values, refused):
    for vector in values:
        kind, name = type_of(vector["type"]), f"{vector['type']} {vector['value']}"
        body = Body(bytes.fromhex(vector["hex"]))
        value = from_json(kind, vector["value"])
        checks.same(f"{name}: decode", (kind.read(body), body.at), (value, len(body.data)))
        if vector["shortest"]:
            checks.same(f"{name}: encode", kind.write(value).hex(), vector["hex"])
    for vector in refused:
        name = f"{vector['type']} {vector['hex']}: {vector['why']}"
        checks.same(name, refuses(type_of(vector["type"]).read, Body(bytes.fromhex(vector["hex"]))), True)


def check_malformed(checks, vectors):
    """What a client reads is refused. What servers read shows the codec's own refusals, as far as it has them."""
    left_out = 0
    for vector in vectors:
        data, reason = bytearray.fromhex(vector["hex"]), vector["reason"]
        if vector["reader"] == "client":
            checks.same(vector["name"], refuses(next_frame, data), True)
        elif reason == "Incomplete":
            checks.same(vector["name"], next_frame(data, FROM_CLIENT), None)
        elif reason in ("Malformed", "TrailingBytes", "UnknownExtension", "UnknownFlags", "UnknownKind"):
            checks.same(vector["name"], refuses(next_frame, data, FROM_CLIENT), True)
        else:                                       # a server's rules: hello first, its magic and names, its limits
            left_out += 1
    return left_out


def check_tolerated(checks, vectors):
    for vector in vectors:
        kinds = FROM_SERVER if vector["reader"] == "client" else FROM_CLIENT
        data, usual = bytearray.fromhex(vector["hex"]), bytearray.fromhex(vector["same_as"] or "")
        number = int.from_bytes(data[4:6], "little")
        got, again = next_frame(data, kinds), encode("Goodbye", 1)
        checks.same(f"{vector['name']}: all of it is taken", data, b"")
        checks.same(f"{vector['name']}: skipped", got is None, number >= 0x8000)
        if usual:
            checks.same(f"{vector['name']}: the same as", got, next_frame(usual, kinds))
        data += again                               # the frame behind it is found
        checks.same(f"{vector['name']}: what follows", next_frame(data, FROM_CLIENT)[0], "Goodbye")


def main():
    default = pathlib.Path(__file__).resolve().parents[2] / "protocol" / "vectors"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    load = lambda file: json.loads((folder / file).read_text(encoding="utf-8"))     # noqa: E731
    checks = Checks()
    check_frames(checks, load("frames.json")["frames"])
    check_types(checks, load("types.json")["values"], load("types.json")["refused"])
    left_out = check_malformed(checks, load("malformed.json")["malformed"])
    check_tolerated(checks, load("tolerated.json")["tolerated"])
    for difference in checks.differences:
        print(difference)
    print(f"{checks.count} checks, {len(checks.differences)} differences; "
          f"{left_out} vectors are left out, since only a server judges them")
    return 1 if checks.differences else 0


if __name__ == "__main__":
    sys.exit(main())
