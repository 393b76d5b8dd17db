"""Writes golden.json: what Python's csv and json read, for the tests of `ace batch` and of templates.

Run with the Python of target/venv: target/venv/bin/python tests/python/make.py
"""

import csv
import io
import json
import pathlib

TABLES = [
    'lms_user_id,text\n7,plain\n',
    'lms_user_id,text\r\n7,"two\r\nlines"\r\n8,"a ""word"""\r\n',
    'lms_user_id,text\r7,one\r8,two\r',
    'lms_user_id,text\n7,"one\ntwo, three"\n\n8,""\n9,5" disk',
    'lms_user_id;text\n7;1,5\n8;"a;b"\n',
    'lms_user_id\ttext\n7\tx y\n',
]

NUMBERS = [
    '0', '-0', '-0.0', '1', '-1', '1.0', '1.50', '1e-07', '1e-4', '0.0001', '0.00001', '1E5', '1e15', '1e16', '1.5e300',
    '123456789012345680.0', '0.1', '0.30000000000000004', '2.675', '5e-324', '1.7976931348623157e308',
    '9007199254740993', '9007199254740993.0', '9223372036854775807', '-9223372036854775808', '18446744073709551615',
    '18446744073709551616', '-9223372036854775809', '340282366920938463463374607431768211456',
    '-170141183460469231731687303715884105729', str(10**60),
]


def rows(text):
    dialect = next(c for c in ',;\t' if c in text.splitlines()[0])
    return [row for row in csv.reader(io.StringIO(text, newline=''), delimiter=dialect) if row]


golden = {
    'tables': [{'text': text, 'rows': rows(text)} for text in TABLES],
    'numbers': [{'json': text, 'shown': str(json.loads(text))} for text in NUMBERS],
}
path = pathlib.Path(__file__).with_name('golden.json')
path.write_text(json.dumps(golden, indent=1) + '\n')
