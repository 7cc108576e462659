"""Prompts from files in the formats that data sets of captions have."""

import json
from pathlib import Path
from typing import Any

import pytest

from s3search.errors import InvalidConfig
from s3search.models.diffusers.captions import Prompt, read_prompts


def _file(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_bytes(text.encode())
    return str(path)


def test_a_text_file_has_a_prompt_per_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text('a cat\n\n  a "dog"  \na cat\n')
    assert read_prompts(str(path)) == (Prompt(text="a cat"), Prompt(text='a "dog"'))
    assert read_prompts(["a cat"]) == (Prompt(text="a cat"),)


def test_json_lines_may_say_what_is_not_to_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = [{"prompt": "a cat", "negative_prompt": "blurry"}, {"prompt": "a cat"}]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    assert read_prompts(str(path)) == (
        Prompt(text="a cat", negative="blurry"),
        Prompt(text="a cat"),
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", r"p\.jsonl:1 is not JSON"),
        ('{"prompt": "a"}\n{"text": "b"}', r"p\.jsonl:2 needs"),
        ('{"prompt": 3}', r"p\.jsonl:1 needs"),
        ('{"prompt": "a", "seed": 3}', r"p\.jsonl:1 needs"),
        ('["a"]', r"p\.jsonl:1 needs"),
        ("\n", "holds none"),
    ],
)
def test_wrong_json_lines_are_named(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(InvalidConfig, match=problem):
        read_prompts(str(path))
    with pytest.raises(InvalidConfig, match="cannot read"):
        read_prompts(str(tmp_path / "none.txt"))


CAT, DOGS = Prompt(text="a red cat"), Prompt(text="two dogs, one asleep")
_COCO = {  # captions_val2014.json: images and captions apart
    "info": {"year": 2014},
    "images": [{"id": 9, "file_name": "COCO_val2014_000000000009.jpg"}],
    "annotations": [
        {"image_id": 9, "id": 1, "caption": "a red cat"},
        {"image_id": 9, "id": 2, "caption": "two dogs, one asleep\n"},
    ],
}
_FILES: dict[str, tuple[str, str]] = {
    "list of texts": ("p.json", json.dumps(["a red cat", "two dogs, one asleep"])),
    "list of objects": (
        "p.json",
        json.dumps([{"prompt": "a red cat", "seed": 3}, {"prompt": DOGS.text}], indent=1),
    ),
    "MS-COCO": ("captions_val2014.json", json.dumps(_COCO)),
    "MS-COCO as csv": (
        "coco.csv",
        'image_id,id,caption\n9,1,a red cat\n9,2,"two dogs, one asleep"\n',
    ),
    "MS-COCO as tsv": ("c.tsv", "id\tcaption\n1\ta red cat\n2\ttwo dogs, one asleep\n"),
    "PartiPrompts": (
        "PartiPrompts.tsv",
        "Prompt\tCategory\tChallenge\tNote\r\n"
        "a red cat\tAnimals\tBasic\t\r\ntwo dogs, one asleep\tAnimals\tQuantity\ta\r\n",
    ),
    "byte order mark": ("p.csv", '\ufeffprompt\na red cat\n"two dogs, one asleep"\n'),
    "plain text": ("p.txt", "\ufeffa red cat\r\n\r\ntwo dogs, one asleep\r\n"),
    "JSON lines in a .json": (
        "p.json",
        '{"prompt": "a red cat"}\n{"prompt": "two dogs, one asleep"}\n',
    ),
}


@pytest.mark.parametrize("kind", _FILES)
def test_prompts_are_those_of_the_file_and_no_header(tmp_path: Path, kind: str) -> None:
    assert read_prompts(_file(tmp_path, *_FILES[kind])) == (CAT, DOGS)


def test_a_table_says_what_is_not_to_be_seen_and_a_tsv_may_hold_quotes(tmp_path: Path) -> None:
    table = _file(tmp_path, "p.csv", "prompt,negative_prompt\na red cat,blurry\na red cat,\n")
    assert read_prompts(table) == (Prompt(text="a red cat", negative="blurry"), CAT)
    quoted = _file(tmp_path, "p.tsv", 'Prompt\tNote\n"Stop" on a sign\tx\n')
    assert read_prompts(quoted) == (Prompt(text='"Stop" on a sign'),)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("p.txt", "Prompt\tCategory\na\tb\n", r"begins with the header of a table .*\*\.tsv"),
        ("p.txt", "image_id,caption\n1,a\n", r"begins with the header of a table .*\*\.csv"),
        ("p.csv", "id,url\n1,a\n", "needs exactly one of prompt, caption, text"),
        ("p.csv", "prompt,text\na,b\n", "has 'prompt' and 'text'; needs exactly one"),
        ("p.csv", "prompt,id\na, b,1\n", "row 2 has 3 columns, the header 2"),
        ("p.csv", 'prompt\n"a\n', "is no table"),
        ("p.csv", "prompt,id\n,1\n", "row 2 holds no text"),
        ("p.csv", "", "holds none"),
        ("p.json", "[3]", r"p\.json\[0\] is neither a text nor an object"),
        ("p.json", '[{"name": "a"}]', "needs exactly one of prompt, caption, text"),
        ("p.json", '{"annotations": 3}', "holds no list of texts or objects"),
        ("p.json", "[" * 6000, "is not JSON"),
        ("p.json", "3", "holds no list"),
    ],
)
def test_what_cannot_be_told_is_refused(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    with pytest.raises(InvalidConfig, match=problem):
        read_prompts(_file(tmp_path, name, text))


def test_a_list_of_something_else_is_refused() -> None:
    wrong: Any = ["a", 3]
    with pytest.raises(InvalidConfig, match="a list of strings"):
        read_prompts(wrong)
