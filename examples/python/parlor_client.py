#!/usr/bin/env python3
"""A chat client in one file, written from PROTOCOL.md alone. It needs Python 3.9 and nothing else.

    python3 parlor_client.py ROOM --as NAME [--server HOST:PORT] [--send TEXT]... [--expect N] [--timeout S]

It joins ROOM with the newest 20 messages, says the --send texts (without any: the lines of standard input), and prints
"HH:MM <name> text" for everything that is said. It exits with 0 once its own lines are acked and, with --expect, N
messages were printed.

Copy it into the language that you need. Every part names the section of PROTOCOL.md that it follows.
"""
import argparse
import queue
import random
import select
import socket
import sys
import threading
import time


# ---------------------------------------------------------------- Types

class Bad(Exception):
    """Bytes that no peer of version 1 sends."""


class Body:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if count > len(self.data) - self.at:        # before anything is reserved
            raise Bad("cut off")
        self.at += count
        return self.data[self.at - count:self.at]


class Int:
    """u16, u32, u64: varints. A field takes no form wider than itself."""
    def __init__(self, bits):
        self.bits = bits

    def read(self, body):
        first = body.take(1)[0]
        if first < 251:
            return first
        size = 2 << (first - 251)
        if first > 253 or size * 8 > self.bits:
            raise Bad("a number wider than its field")
        return int.from_bytes(body.take(size), "little")

    def write(self, value):
        if not 0 <= value < 1 << self.bits:
            raise ValueError(f"{value} does not fit {self.bits} bits")
        if value < 251:
            return bytes([value])
        marker = 251 if value < 1 << 16 else 252 if value < 1 << 32 else 253
        return bytes([marker]) + value.to_bytes(2 << (marker - 251), "little")


U16, U32, U64 = Int(16), Int(32), Int(64)


class Bool:
    def read(self, body):
        byte = body.take(1)[0]
        if byte > 1:
            raise Bad("neither 0 nor 1")
        return byte == 1

    def write(self, value):
        return b"\1" if value else b"\0"


class Fixed:
    def __init__(self, size):
        self.size = size

    def read(self, body):
        return body.take(self.size)

    def write(self, value):
        if len(value) != self.size:
            raise ValueError(f"{len(value)} bytes instead of {self.size}")
        return value


class Bytes:
    def read(self, body):
        return body.take(U64.read(body))

    def write(self, value):
        return U64.write(len(value)) + value


class String:
    def read(self, body):
        try:
            return BYTES.read(body).decode("utf-8")
        except UnicodeDecodeError:
            raise Bad("not UTF-8") from None

    def write(self, value):
        return BYTES.write(value.encode("utf-8"))


BOOL, BYTES, STRING = Bool(), Bytes(), String()


class Option:
    def __init__(self, item):
        self.item = item

    def read(self, body):
        return self.item.read(body) if BOOL.read(body) else None

    def write(self, value):
        return b"\0" if value is None else b"\1" + self.item.write(value)


class List:
    def __init__(self, item, most):
        self.item, self.most = item, most

    def read(self, body):
        count = U64.read(body)
        if count > self.most:                       # before room is made for them
            raise Bad("too many items")
        return [self.item.read(body) for _ in range(count)]

    def write(self, value):
        if len(value) > self.most:
            raise ValueError(f"{len(value)} items, at most {self.most}")
        return U64.write(len(value)) + b"".join(map(self.item.write, value))


class Choice:
    """An enum whose variants have fields: ("Position", epoch, seq)."""
    def __init__(self, *variants):
        self.variants = variants                    # (name, field's name, field's type, ...)
        self.names = [variant[0] for variant in variants]

    def read(self, body):
        number = U32.read(body)
        if number >= len(self.variants):
            raise Bad("no such variant")
        return (self.names[number], *(field.read(body) for field in self.variants[number][2::2]))

    def write(self, value):
        number = self.names.index(value[0])
        fields = zip(self.variants[number][2::2], value[1:])
        return U32.write(number) + b"".join(field.write(item) for field, item in fields)


class Enum(Choice):
    """An enum without fields: its variant's name."""
    def __init__(self, names):
        super().__init__(*([name] for name in names.split()))

    def read(self, body):
        return super().read(body)[0]

    def write(self, value):
        return super().write([value])


class Struct:
    def __init__(self, **fields):                   # in wire order
        self.fields = fields

    def read(self, body):
        return {name: field.read(body) for name, field in self.fields.items()}

    def write(self, value):
        return b"".join(field.write(value[name]) for name, field in self.fields.items())


class Extensions(List):
    """Extensions: version 1 knows none. Even tags are skipped, odd ones must not be missed."""
    def __init__(self):
        super().__init__(Struct(tag=U32, bytes=BYTES), 16)

    def read(self, body):
        entries = super().read(body)
        if any(entry["tag"] % 2 for entry in entries):
            raise Bad("an unknown extension that must be understood")
        return entries


# ---------------------------------------------------------------- Messages

EXTENSIONS = Extensions()
DEVICE_CLASS = Enum("Other Mobile Desktop Web Bot")
NETWORK = Enum("Unknown Wired Wifi Mobile2g Mobile3g Mobile4g Mobile5g")
DURABILITY = Enum("Memory Buffered Synced")
DIRECTION = Enum("Forward Backward")
JOIN_FROM = Choice(["Tail"], ["Newest", "records", U32], ["Seq", "seq", U64],
                   ["Position", "epoch", U64, "seq", U64])
SIGNAL_TO = Choice(["Room", "room", U64], ["User", "user", STRING])
READER = Struct(user=STRING, read=U64, delivered=U64)
LIMITS = Struct(payload_bytes_max=U32, rooms_max=U32, unanswered_requests_max=U32, page_records_max=U32,
                page_bytes_max=U32, text_bytes_max=U32)
MODULE = Struct(name=STRING, kind_first=U16, kind_last=U16)
PAGE_GAP = Struct(**{"from": U64, "to": U64, "why": U16})
POSITION = Struct(room=U64, epoch=U64, seq=U64)
# "Numbers with names" are plain U16s here: a receiver takes those that it does not know.
MESSAGE, TEXT = 0, 1                                # RecordKind, ContentType
PAYLOAD_MOST = 65536                                # whatever the server allows today


class Message(Struct):
    """A kind: its number, its longest body, its fields."""
    def __init__(self, number, longest, /, **fields):
        super().__init__(**fields, extensions=EXTENSIONS)
        self.number, self.longest = number, longest


ROLE = Enum("Owner Moderator Member Muted Banned")
ROOM_OPTIONS = Struct(durability=DURABILITY, access=Enum("Open Members Broadcast"),
                      past=Enum("ByAccess All SinceAdded"), announce=Enum("WhileSmall Always Never"),
                      lifetime_ms=U64, records_max=U64, bytes_max=U64, payload_bytes_max=U32,
                      messages_per_second_max=U32)
ACTIVITY = Struct(time=U64, room=U64)
MEMBER_ENTRY = Struct(user=STRING, role=ROLE, added=U64)
ROOM_ENTRY = Struct(name=STRING, room=U64, epoch=U64, role=ROLE, tail=U64, count=U64, unread=U64,
                    time=U64, newest=BYTES)
USERS = List(STRING, 1000)
DEVICE_PRESENCE = Struct(device=STRING, device_class=DEVICE_CLASS, network=NETWORK, connected=BOOL)
USER_PRESENCE = Struct(user=STRING, online=BOOL, since=U64, devices=List(DEVICE_PRESENCE, 6))

KINDS = {
    "Hello": Message(0x0010, 8192, magic=Fixed(4), version_min=U16, version_max=U16, features=U64, user=STRING,
                     device=STRING, device_class=DEVICE_CLASS, network=NETWORK, credentials=BYTES,
                     resume=Option(Fixed(16)), attempt=U64),
    "Welcome": Message(0x0011, 4096, version=U16, features=U64, server_time=U64, grant_ms=U32, token=Fixed(16),
                       resumed=BOOL, device_tag=U64, limits=LIMITS, modules=List(MODULE, 32)),
    "Goodbye": Message(0x0012, 1024),
    "Close": Message(0x0013, 4096, code=U16, retry_after_ms=U32, message=STRING),
    "Resume": Message(0x0014, 65536, positions=List(POSITION, 1000)),
    "Error": Message(0x0015, 4096, code=U16, retry_after_ms=U32, message=STRING),
    "Join": Message(0x0020, 1024, **{"room": STRING, "from": JOIN_FROM}),
    "Follow": Message(0x0024, 65536, positions=List(POSITION, 1000), newest=U32),
    "Attached": Message(0x0025, 4096, name=STRING, room=U64, epoch=U64, tail=U64, first=U64, cursor=U64, count=U64,
                        read=U64, unread=U64, durability=DURABILITY, newest_nonce=Option(U64)),
    "Joined": Message(0x0021, 4096, room=U64, epoch=U64, tail=U64, first=U64, cursor=U64, count=U64,
                      read=U64, unread=U64, durability=DURABILITY, newest_nonce=Option(U64)),
    "Leave": Message(0x0022, 1024, room=U64),
    "Left": Message(0x0023, 1024, room=U64, cursor=U64),
    "Publish": Message(0x0030, PAYLOAD_MOST + 1024, room=U64, nonce=U64, kind=U16, refers_to=U64,
                       lifetime_ms=Option(U64), flags=U32, content_type=U16, payload=BYTES),
    "Ack": Message(0x0031, 1024, room=U64, nonce=U64, seq=U64, time=U64, durability=DURABILITY, duplicate=BOOL),
    "Part": Message(0x0032, PAYLOAD_MOST + 1024, room=U64, nonce=U64, number=U32, parts=U32, total_bytes=U32, kind=U16,
                    refers_to=U64, lifetime_ms=Option(U64), flags=U32, content_type=U16, payload=BYTES),
    "PartTaken": Message(0x0037, 1024, room=U64, nonce=U64, missing=List(U32, 64)),
    "Deliver": Message(0x0033, PAYLOAD_MOST + 1024, room=U64, seq=U64, time=U64, sender=STRING, device_tag=U64,
                       nonce=U64, kind=U16, refers_to=U64, expires=U64, count=U64, content_type=U16, payload=BYTES),
    "Gap": Message(0x0035, 1024, **{"room": U64, "epoch": U64, "from": U64, "to": U64, "why": U16}),
    "Fetch": Message(0x0040, 1024, room=U64, start=Option(U64), direction=DIRECTION, limit=U32),
    "Page": Message(0x0041, 524288, room=U64, epoch=U64, tail=U64, next=Option(U64), gaps=List(PAGE_GAP, 256),
                    records=BYTES),
    "Heartbeat": Message(0x0050, 65536, network=Option(NETWORK), positions=List(POSITION, 1000)),
    "HeartbeatAck": Message(0x0051, 1024, server_time=U64, grant_ms=U32),
    "CreateRoom": Message(0x0060, 73728, room=STRING, options=ROOM_OPTIONS, members=USERS),
    "Done": Message(0x0061, 1024),
    "ConfigureRoom": Message(0x0062, 1024, room=STRING, options=ROOM_OPTIONS),
    "Detached": Message(0x0063, 1024, room=U64, cursor=U64, code=U16, message=STRING),
    "DeleteRoom": Message(0x0064, 1024, room=STRING),
    "RoomInfo": Message(0x0065, 1024, name=STRING, room=U64, epoch=U64, options=ROOM_OPTIONS, tail=U64, count=U64,
                        members=U64, role=Option(ROLE)),
    "DescribeRoom": Message(0x0066, 1024, room=STRING),
    "Members": Message(0x0067, 131072, members=List(MEMBER_ENTRY, 1000), next=Option(STRING)),
    "SetMembers": Message(0x0068, 73728, room=STRING, role=ROLE, users=USERS),
    "Rooms": Message(0x0069, 524288, rooms=List(ROOM_ENTRY, 100), next=Option(ACTIVITY)),
    "RemoveMembers": Message(0x006a, 73728, room=STRING, users=USERS),
    "ListMembers": Message(0x006c, 1024, room=STRING, after=Option(STRING), limit=U32),
    "ListRooms": Message(0x006e, 1024, before=Option(ACTIVITY), limit=U32),
    "OpenDirect": Message(0x0070, 1024, user=STRING),
    "Mark": Message(0x0026, 1024, room=U64, read=U64),
    "Marked": Message(0x0027, 1024, room=U64, read=U64, unread=U64),
    "FetchReaders": Message(0x0028, 1024, room=U64, seq=U64),
    "Readers": Message(0x0029, 131072, room=U64, readers=List(READER, 1000)),
    "QueryPresence": Message(0x0080, 73728, users=USERS),
    "Presence": Message(0x0081, 524288, users=List(USER_PRESENCE, 1000)),
    "WatchPresence": Message(0x0082, 139264, add=USERS, remove=USERS),
    "WatchRoom": Message(0x0084, 1024, room=U64, watch=BOOL),
    "RoomPresence": Message(0x0085, 139264, room=U64, all=BOOL, named=BOOL, count=U32, came=USERS, went=USERS),
    "Signal": Message(0x0090, 1024, to=SIGNAL_TO, key=U32, payload=BYTES),
    "Signaled": Message(0x0091, 1024, room=Option(U64), sender=STRING, device_tag=U64, key=U32, payload=BYTES),
}
FROM_SERVER = {message.number: name for name, message in KINDS.items() if message.number % 2}


# ---------------------------------------------------------------- Frames

def encode(name, request, /, **fields):
    message = KINDS[name]
    body = message.write({"extensions": [], **fields})
    return (len(body).to_bytes(4, "little") + message.number.to_bytes(2, "little") + bytes(2)
            + request.to_bytes(4, "little") + body)


def next_frame(buffer, kinds=FROM_SERVER):
    """Takes the first frame from a bytearray: (name, request, fields). None if more bytes are needed."""
    while len(buffer) >= 12:
        length, number = int.from_bytes(buffer[0:4], "little"), int.from_bytes(buffer[4:6], "little")
        if buffer[7] != 0:                          # the lower byte's flags are ignored
            raise Bad("a flag that must be understood")
        name = kinds.get(number)
        if name is None and number < 0x8000:
            raise Bad(f"unknown kind {number:#06x}")
        if length > (KINDS[name].longest if name else PAYLOAD_MOST + 1024):
            raise Bad("a frame longer than its kind may be")
        if len(buffer) < 12 + length:
            return None
        request, data = int.from_bytes(buffer[8:12], "little"), bytes(buffer[12:12 + length])
        del buffer[:12 + length]
        if name:                                    # otherwise it is an unknown module's: skipped
            body = Body(data)
            fields = KINDS[name].read(body)
            if body.at != len(data):
                raise Bad("trailing bytes")
            return name, request, fields
    return None


# ---------------------------------------------------------------- The client

ANSWER_WITHIN = 10.0        # seconds that an answer may take
IN_FLIGHT_MOST = 32         # publishes on the way; the server remembers the answers of 128


class Stop(Exception):
    """The client ends, and must not come back by itself."""


class Saying:
    """A message in the outbox. It keeps its nonce for ever."""
    def __init__(self, payload):
        self.payload, self.nonce, self.request, self.sent_at, self.sends = payload, None, None, 0.0, 0


class Client:
    """One room on one connection, which is made again when it fails. `step` does what is due and waits for more."""

    def __init__(self, server, user, device, room, first_from, show, log):
        self.server, self.user, self.device, self.room_name = server, user, device, room
        self.first_from, self.show, self.log = first_from, show, log
        self.sock, self.attempt, self.bound, self.connect_at = None, 0, 1.0, 0.0
        self.number, self.epoch, self.position = None, None, 0      # `number` is None while we are not in the room
        self.hole = 0                                               # the newest record that was dropped over a hole
        self.outbox, self.last_nonce, self.window, self.failed = [], 0, IN_FLIGHT_MOST, []
        self.leaving = self.ended = False

    # Flows: Connecting

    def connect(self):
        self.attempt += 1
        now = time.monotonic()
        self.inbox, self.out, self.requests, self.waiting = bytearray(), bytearray(), 0, {}
        self.welcome = self.number = self.beat_at = None
        self.joining = False
        self.stood_since = self.heard_at = now
        self.hold_until, self.go_back, self.told_position = 0.0, False, None
        for saying in self.outbox:                                  # Reconnecting 4: again, with the nonces they have
            saying.request, saying.sends = None, 0
        try:
            self.sock = socket.create_connection(self.server, ANSWER_WITHIN)
        except OSError as error:
            return self.lost(f"cannot connect: {error}")
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        # No token: we join by position instead, so `resumed` is never true.
        self.ask("Hello", magic=b"PRLR", version_min=1, version_max=1, features=0, user=self.user, device=self.device,
                 device_class="Desktop", network="Unknown", credentials=b"", resume=None, attempt=self.attempt)

    # Flows: Reconnecting

    def lost(self, why, not_before=0.0):
        """The connection is gone. Comes back after a random and growing time."""
        if self.sock:
            self.sock.close()
        now = time.monotonic()
        if now - self.stood_since >= 60:
            self.bound = 1.0
        self.sock, self.number = None, None
        self.connect_at = now + not_before + random.uniform(0, self.bound)
        self.bound = min(self.bound * 2, 60.0)
        if self.leaving:
            self.ended = True                                       # what we wanted to say was acked before
        else:
            self.log(f"{why}; back in {self.connect_at - now:.1f} s")

    def on_close(self, _request, code, retry_after_ms, message, **_):
        """Codes: the range tells what to do, so unknown codes are obeyed too."""
        if self.leaving:
            self.sock.close()
            self.ended = True
        elif 3000 <= code < 3500:
            self.lost(f"closed: {code} {message}")
        elif 3500 <= code < 4000:
            self.lost(f"closed: {code} {message}", retry_after_ms / 1000)
        else:
            raise Stop(f"closed: {code} {message}")

    # Requests and answers

    def ask(self, name, about=None, **fields):
        self.requests = self.requests % 0xFFFFFFFF + 1              # never 0
        self.waiting[self.requests] = (name, about, time.monotonic())
        self.out += encode(name, self.requests, **fields)
        return self.requests

    def on_error(self, request, code, retry_after_ms, message, **_):
        name, saying, _since = self.waiting.pop(request, (None, None, 0))
        not_before = time.monotonic() + max(retry_after_ms, 100) / 1000     # 0 must not become a busy loop
        later = 1000 <= code < 2000
        if name == "Publish" and saying.request == request and saying in self.outbox:
            saying.request, saying.sends = None, 0
            if later:                                               # go back to it: nothing newer may overtake
                self.hold_until, self.go_back = max(self.hold_until, not_before), True
                self.window = 1
            else:
                self.outbox.remove(saying)
                self.failed.append(saying)
                self.log(f"not sent: {message} ({code})")
        elif name == "Join":
            if not later:
                raise Stop(f"cannot join: {message} ({code})")
            self.hold_until, self.joining = not_before, False
        elif name == "Fetch":
            self.lost(f"a hole cannot be closed: {message} ({code})")   # to begin anew at our position

    # Flows: Connecting, Joining

    def on_welcome(self, request, **fields):
        self.waiting.pop(request, None)
        if self.welcome or fields["version"] != 1:
            raise Bad("a welcome that was not asked for")
        self.welcome = fields
        self.granted(fields["grant_ms"])

    def join(self):
        self.joining = True
        begin = self.first_from if self.epoch is None else ("Position", self.epoch, self.position)
        self.ask("Join", room=self.room_name, **{"from": begin})

    def on_joined(self, request, **joined):
        self.waiting.pop(request, None)
        self.number, self.epoch, self.position, self.hole = joined["room"], joined["epoch"], joined["cursor"], 0
        self.last_nonce = max(self.last_nonce, joined["newest_nonce"] or 0)

    # Flows: Receiving

    def on_deliver(self, _request, **record):
        if record["room"] != self.number:
            return
        if record["sender"] == self.user and record["device_tag"] == self.welcome["device_tag"]:
            self.acked(record["nonce"])                             # our own Deliver is as good as the Ack
        if record["seq"] <= self.position:
            return                                                  # a repeat
        if record["seq"] > self.position + 1:
            self.hole = max(self.hole, record["seq"])               # dropped: it is fetched too
            return self.close_hole()
        self.position = record["seq"]
        self.show(record)

    def on_gap(self, _request, **gap):
        if gap["room"] == self.number:
            if self.epoch != gap["epoch"] or gap["to"] < self.position:
                self.hole = 0
            self.epoch, self.position = gap["epoch"], gap["to"]     # whatever it was
            if gap["from"] <= gap["to"]:
                self.log(f"{gap['to'] - gap['from'] + 1} messages can no longer be read")

    def close_hole(self):
        if self.hole > self.position and not any(name == "Fetch" for name, _, _ in self.waiting.values()):
            self.ask("Fetch", about=self.position, room=self.number, start=self.position + 1, direction="Forward",
                     limit=0)

    def on_page(self, request, **page):
        _, asked_at, _ = self.waiting.pop(request, (None, None, 0))
        if page["room"] != self.number or page["epoch"] != self.epoch:
            return                                                  # of another epoch: a Gap is on its way
        entries, records = [(gap["from"], gap) for gap in page["gaps"]], bytearray(page["records"])
        while records:
            name, _, record = next_frame(records) or ("half a frame", 0, {})
            if name != "Deliver":
                raise Bad("records that are none")
            entries.append((record["seq"], record))
        for seq, entry in sorted(entries, key=lambda entry: entry[0]):
            if "to" not in entry:
                self.on_deliver(0, **entry)
            elif seq <= self.position + 1:
                self.position = max(self.position, entry["to"])
        if self.position == asked_at and self.position < self.hole:
            return self.lost("a hole cannot be closed")
        self.close_hole()

    # Flows: Publishing and nonces

    def say(self, text):
        self.outbox.append(Saying(text.encode("utf-8")))

    def acked(self, nonce):
        if any(saying.nonce == nonce for saying in self.outbox):
            self.outbox = [saying for saying in self.outbox if saying.nonce != nonce]
            self.window = min(self.window + 1, IN_FLIGHT_MOST)

    def on_ack(self, request, **ack):
        self.waiting.pop(request, None)
        if ack["room"] == self.number:
            self.acked(ack["nonce"])

    def publish(self):
        """Sends what may be sent, in the order of the nonces."""
        now = time.monotonic()
        for saying in self.outbox:
            if saying.request and now >= saying.sent_at + ANSWER_WITHIN:
                saying.request, self.go_back = None, True
                if saying.sends == 3:
                    self.log("the server is busy; the message is kept")
        in_flight = sum(saying.request is not None for saying in self.outbox)
        if now < self.hold_until or self.go_back and in_flight:
            return                                                  # first hear of all that are on the way
        self.go_back = False
        requests_most = max(self.welcome["limits"]["unanswered_requests_max"] - 2, 1)   # leaves two for the others
        for saying in list(self.outbox):
            if saying.request:
                continue
            if in_flight >= self.window or len(self.waiting) >= requests_most or saying.sends == 3:
                return
            if len(saying.payload) > self.welcome["limits"]["payload_bytes_max"]:
                self.outbox.remove(saying)                          # much too long a frame would end the connection
                self.failed.append(saying)
                self.log("not sent: too long")
                continue
            if saying.nonce is None:                                # a client without storage: its clock
                self.last_nonce = saying.nonce = max(self.last_nonce + 1, time.time_ns() // 1000)
            saying.request = self.ask("Publish", about=saying, room=self.number, nonce=saying.nonce, kind=MESSAGE,
                                      refers_to=0, lifetime_ms=None, flags=0, content_type=TEXT,
                                      payload=saying.payload)
            saying.sent_at, saying.sends, in_flight = now, saying.sends + 1, in_flight + 1

    # Flows: Heartbeats

    def granted(self, grant_ms):
        self.beat_at = time.monotonic() + grant_ms / 1000 * 0.9

    def beat(self):
        here = (self.epoch, self.position)
        changed = self.number is not None and here != self.told_position
        self.told_position = here if changed else self.told_position
        self.beat_at = None                                         # one at a time: wait for its ack
        self.ask("Heartbeat", network=None, positions=[
            {"room": self.number, "epoch": self.epoch, "seq": self.position}] if changed else [])

    def on_heartbeatack(self, request, grant_ms, **_):
        self.waiting.pop(request, None)
        self.granted(grant_ms)

    # Flows: Leaving, Saying goodbye

    def leave(self):
        """Ends the session. Call it once everything is acked; `ended` tells when it is over."""
        self.leaving = True
        if self.sock is None or self.welcome is None:
            self.ended = True
        elif self.number is None:
            self.ask("Goodbye")
        else:
            self.ask("Leave", room=self.number)

    def on_marked(self, _request, **_):                            # A cursor that this program does not use
        pass

    def on_signaled(self, _request, **_):                          # Nothing is promised of signals
        pass

    def on_left(self, request, **_):
        self.waiting.pop(request, None)
        self.number = None                                          # position == cursor: all was read before this
        self.ask("Goodbye")

    # The loop: reads and writes independently of one another

    def step(self, wake, until):
        """Does what is due, then waits for the socket, for `wake`, for a timer or for `until`."""
        now = time.monotonic()
        if self.sock is None:
            if now >= self.connect_at:
                return self.connect()
            return select.select([wake], [], [], max(0.0, min(self.connect_at, until) - now))
        due = [until]
        if self.welcome and not self.leaving:
            if self.number is None and not self.joining and now >= self.hold_until:
                self.join()
            elif self.number is not None:
                self.publish()
            due += [self.hold_until] if self.hold_until > now else []
            due += [saying.sent_at + ANSWER_WITHIN for saying in self.outbox if saying.request]
        if self.beat_at is not None:
            if now >= self.beat_at:
                self.beat()
            else:
                due.append(self.beat_at)
        for name, _, since in self.waiting.values():
            if name in ("Hello", "Heartbeat", "Leave", "Goodbye"):  # silence: the connection is dead
                dead_at = max(since, self.heard_at) + ANSWER_WITHIN
                if now >= dead_at:
                    return self.lost("the server is silent")
                due.append(dead_at)
        timeout = max(0.0, min(due) - now)
        try:
            readable, writable, _ = select.select([self.sock, wake], [self.sock] if self.out else [], [], timeout)
            if writable:
                del self.out[:self.sock.send(self.out)]
            if self.sock in readable:
                data = self.sock.recv(65536)
                if not data:
                    return self.lost("the connection ended")
                self.inbox += data
                self.heard_at = time.monotonic()
        except BlockingIOError:
            return None
        except OSError as error:
            return self.lost(f"the connection failed: {error}")
        return self.handle()

    def handle(self):
        try:
            while self.sock and not self.ended:
                frame = next_frame(self.inbox)
                if frame is None:
                    return
                name, request, fields = frame
                if self.welcome is None and name not in ("Welcome", "Close"):
                    raise Bad(f"{name} before the welcome")
                getattr(self, "on_" + name.lower())(request, **fields)
        except Bad as bad:                                          # Bad input: close. It would come again, so stop
            self.sock.close()
            raise Stop(f"the server sent bad bytes: {bad}") from None


# ---------------------------------------------------------------- The command line

def clean(text):
    """Text of strangers for a terminal: no control characters, no line breaks, nothing that turns the direction."""
    def harmful(char):
        number = ord(char)
        return (number < 0x20 or 0x7F <= number <= 0x9F or number in (0x061C, 0x200E, 0x200F, 0x2028, 0x2029)
                or 0x202A <= number <= 0x202E or 0x2066 <= number <= 0x2069)
    return "".join("\N{REPLACEMENT CHARACTER}" if harmful(char) else char for char in text)


def line_of(record):
    """What is printed for a record; None for a kind that we do not know."""
    if record["kind"] != MESSAGE:
        return None
    text = f"({len(record['payload'])} bytes of content type {record['content_type']})"
    if record["content_type"] == TEXT:
        text = record["payload"].decode("utf-8", "replace")         # the server does not check that it is
    return f"{time.strftime('%H:%M', time.localtime(record['time'] / 1000))} <{clean(record['sender'])}> {clean(text)}"


def read_lines(lines, wake):
    """Standard input, on a thread of its own, since it cannot be waited for together with a socket everywhere."""
    for line in sys.stdin:
        lines.put(line)
        wake.send(b"\0")
    lines.put(None)
    wake.send(b"\0")


def main():
    parser = argparse.ArgumentParser(description="A chat client in one file.")
    parser.add_argument("room")
    parser.add_argument("--as", dest="user", required=True, metavar="NAME")
    parser.add_argument("--device", default="python", help="one for each of your devices (default: python)")
    parser.add_argument("--server", default="127.0.0.1:7400", metavar="HOST:PORT")
    parser.add_argument("--send", action="append", metavar="TEXT", help="instead of standard input; may be repeated")
    parser.add_argument("--expect", type=int, default=0, metavar="N", help="wait until N messages were printed")
    parser.add_argument("--timeout", type=float, default=float("inf"), metavar="S", help="give up after S seconds")
    options = parser.parse_args()
    host, _, port = options.server.rpartition(":")
    if not port.isdecimal():
        parser.error("--server is HOST:PORT")
    sys.stdout.reconfigure(errors="replace")
    printed = 0

    def show(record):
        nonlocal printed
        line = line_of(record)
        if line is not None:
            printed += 1
            print(line, flush=True)

    def log(text):
        print(f"parlor_client: {clean(text)}", file=sys.stderr, flush=True)

    lines, (wake, waker) = queue.SimpleQueue(), socket.socketpair()
    for text in options.send or []:
        lines.put(text)
    if options.send:
        lines.put(None)
    else:
        threading.Thread(target=read_lines, args=(lines, waker), daemon=True).start()
    client = Client((host.strip("[]"), int(port)), options.user, options.device, options.room, ("Newest", 20), show, log)
    give_up, said_all = time.monotonic() + options.timeout, False
    try:
        while not client.ended:
            if time.monotonic() >= give_up:
                raise Stop("time is up")
            client.step(wake, min(give_up, time.monotonic() + 3600))
            if select.select([wake], [], [], 0)[0]:
                wake.recv(4096)
            while not lines.empty():
                text = lines.get()
                said_all = text is None
                if text and text.strip("\r\n"):
                    client.say(text.rstrip("\r\n"))
            if said_all and not client.outbox and printed >= options.expect and not client.leaving:
                client.leave()
    except Stop as stop:
        log(str(stop))
        return 1
    except KeyboardInterrupt:
        return 130
    return 1 if client.failed else 0


if __name__ == "__main__":
    sys.exit(main())
