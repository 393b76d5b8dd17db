"""Decrypts the body of a request of Web Push, a file, by http-ece with the keys of the browser in tests/fixtures/vendors."""
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # no __pycache__ in the source tree
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import http_ece  # noqa: E402
from vendors import web_push  # noqa: E402

keys = {"private_key": web_push.key(web_push.BROWSER), "auth_secret": web_push.SECRET[:16]}
sys.stdout.buffer.write(http_ece.decrypt(Path(sys.argv[1]).read_bytes(), **keys))
