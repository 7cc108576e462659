"""Who may come in: the lines of an htpasswd file with bcrypt, which tell no reader a password.

Plain lines `NAME:PASSWORD` open the door too, for this version still.  A bcrypt hash is slow to
check by design: what opened the door once is known by a digest under a key of this process.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from s3search.errors import InvalidConfig
from s3search.files import text_of

_HASH = re.compile(r"\$2[aby]\$(0[4-9]|1[0-7])\$[./A-Za-z0-9]{53}")
_OF_ANOTHER_KIND = re.compile(r"\$\w+\$.+|\{SHA\}.+")
_READ = 72  # bytes of a password that bcrypt looks at, and htpasswd with it


@dataclass(frozen=True, slots=True)
class Login:
    """Digests of `name:password` and hashes by name, any of which opens the door."""

    digests: tuple[bytes, ...] = field(repr=False)
    hashes: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    _key: bytes = field(default_factory=lambda: os.urandom(32), repr=False)
    _opened: set[bytes] = field(default_factory=set, repr=False)

    @classmethod
    def from_file(cls, path: Path) -> "Login":
        """One login a line; raises `InvalidConfig`."""
        try:
            lines = text_of(path).splitlines()
        except InvalidConfig as error:
            raise InvalidConfig(f"--password-file {error}") from error
        hashes: dict[str, bytes] = {}
        plain = []
        for number, line in enumerate(lines, start=1):
            name, _, password = line.partition(":")
            at = f"--password-file {path}: line {number}"
            if line.startswith("#"):
                continue
            if line and not (name and password):
                raise InvalidConfig(f"{at} is not NAME:HASH, one login a line; {_HOW}")
            if _HASH.fullmatch(password):
                hashes[name] = password.encode()
            elif _OF_ANOTHER_KIND.fullmatch(password):
                raise InvalidConfig(f"{at} has a hash that is not bcrypt's, cost 4 to 17; {_HOW}")
            elif line:
                plain.append(line)
        if not hashes and not plain:
            raise InvalidConfig(f"--password-file {path}: is empty; {_HOW}")
        if plain:
            warnings.warn(
                f"--password-file {path}: holds passwords that can be read, which the next "
                f"version will not take; {_HOW}",
                FutureWarning,
                stacklevel=2,
            )
        if hashes:
            _check_installed(path)
        return cls(tuple(_digest(line.encode()) for line in plain), hashes)

    def opens(self, header: str) -> bool:
        """Whether an Authorization header is one of the logins; the time that a refusal takes
        tells nothing of how near it was.
        """
        scheme, _, encoded = header.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return False
        known = hmac.digest(self._key, given, "sha256")
        if known in self._opened:
            return True
        digest = _digest(given)
        same = [hmac.compare_digest(digest, own) for own in self.digests]  # all of them, always
        if self._is_hashed(given) or any(same):
            self._opened.add(known)
            return True
        return False

    def _is_hashed(self, given: bytes) -> bool:
        if not self.hashes:
            return False
        import bcrypt  # noqa: PLC0415  # of the extra `dashboard`

        name, _, password = given.partition(b":")
        known = self.hashes.get(name.decode(errors="replace"))
        some = known or next(iter(self.hashes.values()))  # who is not known waits as long
        is_same = b"\0" not in password and bcrypt.checkpw(password[:_READ], some)
        return known is not None and is_same


_HOW = "`htpasswd -nB NAME` writes a line"


def _check_installed(path: Path) -> None:
    try:
        import bcrypt  # noqa: F401, PLC0415
    except ImportError as error:
        raise InvalidConfig(
            f"--password-file {path}: its hashes need bcrypt; pip install 'bcrypt>=4.1'"
        ) from error


def _digest(login: bytes) -> bytes:
    return hashlib.sha256(login).digest()
