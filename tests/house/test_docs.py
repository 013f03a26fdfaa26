"""The papers tell the truth: every block of README.md and docs/ is run or checked, every link leads somewhere.

HTML comments before a block say what to do with it; without one, python is executed (one interpreter for each page),
a console session is run for real (one shell for each page) and compared with what is printed below each command, YAML
is parsed and linted, TOML is loaded as configuration.

* `<!-- file: NAME -->`       the reader saves the block under this name; it is still checked, and run only by a session
* `<!-- terminal -->`         the last command of the session goes on running, in a terminal of its own
* `<!-- interrupt: WORDS -->` Ctrl-C in the terminal whose command begins with these words
* `<!-- output -->`           what the python block above prints
* `<!-- prints: WORDS -->`    what the terminal whose command begins with these words has printed by now, or soon
* `<!-- finds: RULE -->`      lint finds this in the YAML; `<!-- refused: CODE -->` it is not even valid
* `<!-- runs: COMMAND -->`    what the command prints, shortened: these lines in this order, others between them
* `<!-- soon -->`             the first command is repeated until it prints what is expected
* `<!-- skip: REASON -->`     cannot be run here; how many of these there may be is bounded

`...` in expected output stands for anything in a line, and alone on a line for any number of lines; empty lines do not
count. Ports are exchanged for free ones.
"""

import ast
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from importlib import util
from pathlib import Path
from types import ModuleType

import click
import pytest
import yaml

import hauberk
from hauberk import records
from hauberk.core.config import KEYS, load
from hauberk.core.finding import Severity
from hauberk.errors import REGISTRY, HauberkError
from hauberk.policy.lint import lint
from hauberk.policy.parse import parse_documents
from hauberk.policy.table import parse_table
from tests.support.postgres import database

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAPERS = sorted(
    [*ROOT.glob("*.md"), *(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)],
    key=lambda path: path.as_posix(),
)
LANGUAGES = {"python", "console", "yaml", "toml", "json", "text", "{toctree}"}
MAX_SKIPPED = 3
DEADLINE = 30.0  # seconds for one command; a machine busy with other things is slow
PAUSE = 0.2  # seconds before a command is repeated; nothing tells when its outcome is due
PORT = re.compile(r"\b(?:8000|844\d|845\d)\b")
END = "\x1eend\x1e"


@dataclass
class Block:
    """One fenced block, or a comment that stands alone."""

    page: Path
    line: int
    language: str
    text: str
    notes: dict[str, str]  # verb to words of the comments before it

    def __str__(self) -> str:
        page = self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page.name
        return f"{page}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield what there is to do on a page, in order."""
    notes: dict[str, str] = {}
    fence: tuple[str, int] | None = None
    body: list[str] = []
    strange = -1  # line of the last comment that says nothing to us
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if fence is not None:
            if line.strip() == "```":
                yield Block(page, fence[1], fence[0], "\n".join(body) + "\n", notes)
                notes, fence, body = {}, None, []
            else:
                body.append(line)
        elif comment := re.fullmatch(
            r"<!-- (file|finds|refused|skip|interrupt|runs|prints): (.+) -->|<!-- (terminal|output|soon) -->", line
        ):
            notes[comment.group(1) or comment.group(3)] = comment.group(2) or ""
            if "interrupt" in notes:
                yield Block(page, number, "", "", notes)
                notes = {}
        elif opened := re.fullmatch(r"```(\{?[\w-]*\}?)", line):
            assert strange != number - 1, f"{page}:{strange}: a comment nobody understands"
            fence = (opened.group(1), number)
        elif line.strip():
            strange = number if line.startswith("<!-- ") else strange
            assert not notes, f"{page}:{number}: a comment that belongs to no block"
    assert fence is None, f"{page}: a block that never ends"


BLOCKS = {page: list(blocks_of(page)) for page in PAPERS}
ALL = [block for blocks in BLOCKS.values() for block in blocks]
RUNNABLE = {
    page: [block for block in blocks if "skip" not in block.notes]
    for page, blocks in BLOCKS.items()
    if any(
        "runs" in block.notes or (block.language in {"python", "console"} and not block.notes.keys() & {"skip", "file"})
        for block in blocks
    )
}


def pattern_of(expected: str) -> "re.Pattern[str]":
    """Return what matches the expected output; `...` is anything."""
    some = re.escape("...")
    return re.compile(
        "".join(
            r"(?:[^\n]*\n)*?" if line == "..." else re.escape(line).replace(some, "[^\n]*") + "\n"
            for line in expected.splitlines()
            if line
        )
    )


def is_like(printed: str, expected: str) -> bool:
    """Tell whether this was printed; empty lines do not count."""
    text = "".join(line + "\n" for line in printed.splitlines() if line.strip())
    return pattern_of(expected).fullmatch(text) is not None


def commands_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield command and expected output of each prompt of a console block."""
    command, expected = "", ""
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, expected
            command, expected = line[2:], ""
        elif command.endswith("\\") and not expected and line.startswith("> "):
            command += "\n" + line[2:]
        else:
            expected += line + "\n"
    yield command, expected


PYTHON = """
import json, sys, traceback, types
page = sys.modules["page"] = types.ModuleType("page")
for line in sys.stdin:
    text, name = json.loads(line)
    try:
        exec(compile(text, name, "exec"), page.__dict__)
        verdict = ""
    except BaseException:
        verdict = traceback.format_exc()
    print("\\x1eend\\x1e" + json.dumps(verdict), flush=True)
"""


@dataclass
class Reader:
    """A child process and what it has printed so far."""

    process: "subprocess.Popen[bytes]"
    seen: str = ""
    told: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def __post_init__(self) -> None:
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.told.register(self.process.stdout, selectors.EVENT_READ)

    def until(self, wanted: "re.Pattern[str]") -> "re.Match[str]":
        """Read until the output so far holds a match, and return it."""
        limit = time.monotonic() + DEADLINE
        while (match := wanted.search(self.seen)) is None:
            ready = self.told.select(max(0.0, limit - time.monotonic()))
            assert ready, f"nothing like {wanted.pattern!r} in time:\n{self.seen}"
            assert self.process.stdout is not None
            data = self.process.stdout.read()
            assert data, f"it ended without {wanted.pattern!r}:\n{self.seen}"
            self.seen += data.decode("utf-8")
        return match

    def close(self, number: int) -> int:
        """Send a signal and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            self.told.close()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
        return status


class Stage:
    """Where a page is played: a directory, a shell, an interpreter, terminals, and free ports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports: dict[str, str] = {}
        self.terminals: dict[str, Reader] = {}
        self._shell: Reader | None = None
        self._python: Reader | None = None
        self._printed = ""
        self.database = ""  # address of an empty PostgreSQL database, for a page that speaks of one
        (directory / "examples").symlink_to(ROOT / "examples")

    def exchange(self, text: str) -> str:
        """Exchange the ports a page names for free ones."""
        return PORT.sub(lambda found: self.ports.setdefault(found.group(), _free_port()), text)

    def _start(self, *command: str) -> Reader:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HAUBERK_")}
        environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
        environ["HAUBERK_AUTHORITY_PORT"] = self.exchange("8440")
        environ["PYTHONUNBUFFERED"] = "1"
        if self.database:
            environ["DATABASE_URL"] = self.database
        return Reader(
            subprocess.Popen(
                command, cwd=self.directory, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )  # fmt: skip

    def _ask(self, reader: Reader, text: str) -> tuple[str, str]:
        """Give a child something to do; return what it printed and what it said at the end."""
        assert reader.process.stdin is not None
        reader.process.stdin.write(text.encode())
        reader.process.stdin.flush()
        match = reader.until(re.compile(END + "(.*)\n"))
        printed, reader.seen = reader.seen[: match.start()], reader.seen[match.end() :]
        return printed, match.group(1)

    def console(self, block: Block) -> None:
        """Run a session, command by command."""
        self._shell = self._shell or self._start("sh")
        session = list(commands_of(self.exchange(block.text)))
        for at, (command, expected) in enumerate(session):
            line = f'{{ {command}\n}} </dev/null\n__s=$?; echo "{END}$__s"; (exit $__s)\n'
            limit = time.monotonic() + (DEADLINE if "soon" in block.notes and not at else 0.0)
            printed, status = self._ask(self._shell, line)
            while not is_like(printed, expected) and time.monotonic() < limit:
                time.sleep(PAUSE)
                printed, status = self._ask(self._shell, line)
            told = at + 1 < len(session) and session[at + 1][0].startswith("echo $?")
            assert status == "0" or told, f"{block}: {command}: exit status {status}\n{printed}"
            assert is_like(printed, expected), f"{block}: {command}\n{expected}-- printed:\n{printed}"

    def terminal(self, block: Block) -> None:
        """Start a session whose last command goes on running."""
        session = list(commands_of(self.exchange(block.text)))
        script = "\n".join([*(command for command, _ in session[:-1]), f"exec {session[-1][0]}"])
        terminal = self.terminals[session[-1][0]] = self._start("sh", "-c", script)
        terminal.until(pattern_of(session[-1][1]))

    def _named(self, words: str) -> str:
        (name,) = [command for command in self.terminals if command.startswith(words)]
        return name

    def interrupt(self, words: str) -> None:
        """Press Ctrl-C in a terminal."""
        name = self._named(words)
        terminal = self.terminals.pop(name)
        status = terminal.close(signal.SIGINT)
        assert status == 0, f"{name}: exit status {status}\n{terminal.seen}"

    def python(self, block: Block) -> None:
        """Execute a block in the page's interpreter."""
        self._python = self._python or self._start(sys.executable, "-W", "error", "-c", PYTHON)
        text = "\n" * block.line + self.exchange(block.text)
        self._printed, verdict = self._ask(self._python, json.dumps([text, str(block)]) + "\n")
        assert json.loads(verdict) == "", f"{block}: {json.loads(verdict)}\n{self._printed}"

    def output(self, block: Block) -> None:
        """Compare with what the last python block printed."""
        expected = self.exchange(block.text)
        assert is_like(self._printed, expected), f"{block}: printed\n{self._printed}"

    def runs(self, block: Block) -> None:
        """Run a command whose output the page shows in part."""
        makes = {
            "make demo": [sys.executable, "-m", "examples.payments.demo"]
        }  # what the target runs once it is set up
        done = subprocess.run(makes[block.notes["runs"]], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        expected = block.text
        if os.geteuid() != 0:  # one attack needs a second user
            expected = re.sub(
                r"^\d+ of \d+ (.*), 0 skipped", r"... of ... \1, ... skipped", expected, flags=re.MULTILINE
            )
        wanted = "...\n".join(expected.splitlines(keepends=True))
        assert is_like(done.stderr, f"...\n{wanted}...\n"), f"{block}: printed\n{done.stderr}"

    def save(self, block: Block) -> None:
        """Write a file, or compare with it where it is one of the repository."""
        path = self.directory / block.notes["file"]
        if block.notes["file"].startswith("examples/"):
            assert path.read_text("utf-8") == block.text, f"{block}: not what the file says"
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.exchange(block.text), "utf-8")

    def play(self, block: Block) -> None:
        """Do what a block says."""
        if "file" in block.notes:
            self.save(block)
        elif "interrupt" in block.notes:
            self.interrupt(block.notes["interrupt"])
        elif "output" in block.notes:
            self.output(block)
        elif "runs" in block.notes:
            self.runs(block)
        elif "prints" in block.notes:
            self.terminals[self._named(block.notes["prints"])].until(pattern_of(self.exchange(block.text)))
        elif block.language == "console":
            (self.terminal if "terminal" in block.notes else self.console)(block)
        elif block.language == "python":
            self.python(block)

    def close(self) -> list[str]:
        """End everything that was started; return what did not end well."""
        bad = []
        for name, terminal in reversed(self.terminals.items()):
            if terminal.close(signal.SIGINT) != 0:
                bad.append(f"{name}\n{terminal.seen}")
        for child in (self._shell, self._python):
            if child is not None:
                assert child.process.stdin is not None
                child.process.stdin.close()
                child.close(0)
        return bad


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def play(blocks: list[Block], directory: Path) -> None:
    """Play a page from its first block to its last."""
    directory.mkdir()
    stage = Stage(directory)
    with ExitStack() as stack:
        if any("DATABASE_URL" in block.text for block in blocks):
            stage.database = stack.enter_context(database(empty=True))
        try:
            for block in blocks:
                stage.play(block)
        finally:
            bad = stage.close()
    assert bad == []


@pytest.fixture(scope="module")
def played(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[Path, "Future[None]"]]:
    """All chosen pages on their way, two at a time: they wait for processes more than they compute."""
    base = tmp_path_factory.mktemp("docs")
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    chosen = {item.callspec.id for item in items if "played" in item.fixturenames}
    with ThreadPoolExecutor(2) as pool:
        yield {
            page: pool.submit(play, RUNNABLE[page], base / f"page{number}")
            for number, page in enumerate(RUNNABLE)
            if page.relative_to(ROOT).as_posix() in chosen
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.timeout(300)  # the first one waits for whatever runs beside it
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_tells_to_do_does_what_the_page_says(page: Path, played: dict[Path, "Future[None]"]) -> None:
    played[page].result()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```console\n$ echo one\ntwo\n```", "echo one"),
        ("```console\n$ echo one\n```", "echo one"),
        ("```console\n$ false\n```", "exit status 1"),
        ("```console\n$ hauberk ledger show\n...\n```", "exit status 2"),
        ("<!-- terminal -->\n```console\n$ echo one\ntwo\n```", "ended without"),
        ("```python\nraise ValueError\n```", "ValueError"),
        ("```python\nprint(1)\n```\n\n<!-- output -->\n```text\n2\n```", "printed"),
        ("<!-- file: examples/quickstart/policy.yaml -->\n```yaml\nkind: Other\n```", "not what the file says"),
    ],
)
def test_a_page_that_does_not_tell_the_truth_is_found_out(text: str, complaint: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{text}\n", "utf-8")
    with pytest.raises(AssertionError, match=complaint):
        play(list(blocks_of(page)), tmp_path / "stage")


def test_a_comment_that_nobody_understands_is_found_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- fiel: app.py -->\n```python\nimport hauberk\n```\n", "utf-8")
    with pytest.raises(AssertionError, match="nobody understands"):
        list(blocks_of(page))


def test_every_block_has_a_language_that_is_checked() -> None:
    assert [str(block) for block in ALL if block.language not in LANGUAGES and "interrupt" not in block.notes] == []


def test_few_blocks_are_skipped_and_each_says_why() -> None:
    skipped = [block for block in ALL if "skip" in block.notes]
    assert len(skipped) <= MAX_SKIPPED, [str(block) for block in skipped]
    assert [str(block) for block in skipped if len(block.notes["skip"].split()) < 4] == []


YAML = [block for block in ALL if block.language == "yaml"]


@pytest.mark.parametrize("block", YAML, ids=str)
def test_yaml_is_valid_and_clean_or_wrong_in_the_way_the_page_says(block: Block) -> None:
    if "refused" in block.notes:
        with pytest.raises(HauberkError, match=block.notes["refused"]):
            parse_documents(block.text)
        return
    if isinstance(yaml.safe_load_all(block.text).__next__(), list):
        assert parse_table(block.text)
        return
    documents = parse_documents(block.text)
    findings = {(found.rule, found.severity) for found in lint(documents)}
    assert documents
    if "finds" in block.notes:
        assert block.notes["finds"] in {rule for rule, _ in findings}
    else:
        assert {rule for rule, severity in findings if severity is Severity.ERROR} == set()


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "toml"], ids=str)
def test_toml_is_configuration(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "hauberk.toml"
    path.write_text(block.text, "utf-8")
    assert load(path, environ={}).origins


def test_json_is_json() -> None:
    for block in ALL:
        if block.language == "json":
            json.loads(block.text)


def test_python_that_the_reader_saves_is_python() -> None:
    for block in ALL:
        if block.language == "python" and "file" in block.notes:
            ast.parse(block.text, str(block))


# links


def prose_of(page: Path) -> str:
    """Return a page without its blocks and code spans."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<!\[)`[^`\n]*`(?!\])", "", text)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAPERS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors_of(path), f"{page.name}: {target}"


def test_every_page_of_the_manual_is_reached_from_its_index() -> None:
    listed = {DOCS / "index.md"}
    for page in (path for path in PAPERS if path.is_relative_to(DOCS)):
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            names = [line for line in block.splitlines() if line and not line.startswith(":")]
            found = [path for name in names for path in page.parent.glob(f"{name.removesuffix('.md')}.md")]
            listed.update(found)
    assert [path.name for path in PAPERS if path.is_relative_to(DOCS) and path not in listed] == []


# what the prose mentions

NOT_SETTINGS = {"records.unrecorded", "authority.json"}  # a count in the status, a file
SPANS = [(page, span) for page in PAPERS for span in re.findall(r"`([^`\n]+)`", page.read_text("utf-8"))]


def test_every_path_of_the_repository_that_is_mentioned_exists() -> None:
    top = re.compile(r"(?:src|tests|docs|scripts|examples|bench|requirements)/[a-z_./-]*")
    paths = {(page.name, span) for page, span in SPANS if top.fullmatch(span) and "_build" not in span}
    assert len(paths) > 10
    assert [it for it in sorted(paths) if not list(ROOT.glob(it[1].rstrip("/")))] == []


def test_every_command_and_option_that_is_mentioned_exists() -> None:
    known = dict(script().commands())
    for page, span in SPANS:
        words = span.partition(" -- ")[0].split()
        if words[:1] != ["hauberk"] or len(words) < 2 or words[1].startswith(("-", "@")):
            continue
        names = [name for at in (3, 2) if (name := " ".join(words[:at])) in known]
        assert names, f"{page.name}: {span}"
        group = isinstance(known[names[0]], click.Group)
        options = {option for it in known[names[0]].params for option in it.opts} | {"--help"}
        assert not group or len(words) == 2 or words[2].endswith(","), f"{page.name}: {span}"
        assert {word for word in words if word.startswith("--")} <= options, f"{page.name}: {span}"


def test_every_setting_that_is_mentioned_exists() -> None:
    names = re.compile(r"(?:limits|records|authority|edge|transport|service)\.[a-z_]+")
    found = {span for _, span in SPANS if names.fullmatch(span)}
    assert len(found) > 5
    others = found - KEYS.keys() - NOT_SETTINGS - script().EVENTS.keys()
    assert [name for name in others if util.find_spec(f"hauberk.{name}") is None] == []  # modules have such names too


def test_every_code_that_is_mentioned_exists() -> None:
    found = {code for page in PAPERS for code in re.findall(r"HBK-\d{3}", page.read_text("utf-8"))}
    assert found - REGISTRY.keys() == set()


# the reference


@cache
def script() -> ModuleType:
    """Load scripts/reference.py."""
    spec = util.spec_from_file_location("reference_script", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_source_says() -> None:
    stale = [path.name for path, text in script().pages() if not path.exists() or path.read_text("utf-8") != text]
    assert stale == [], "run: python scripts/reference.py"


def test_the_reference_has_every_name_code_key_command_and_event() -> None:
    reference = script()
    text = {page.stem: page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md")}
    assert [name for name in hauberk.__all__ if f"## {name}\n" not in text["api"]] == []
    assert [name for name in records.__all__ if f"## {name}\n" not in text["records"]] == []
    assert [code for code in REGISTRY if f"`{code}`" not in text["errors"]] == []
    assert [key for key in KEYS if f"| `{key}` |" not in text["configuration"]] == []
    assert [name for name, _ in reference.commands() if f"## {name}\n" not in text["cli"]] == []
    assert [kind for kind in reference.EVENTS if f"| `{kind}` |" not in text["events"]] == []


def test_every_event_type_the_code_writes_is_described_and_no_other() -> None:
    reference = script()
    assert reference.written_events() == set(reference.EVENTS)


def test_every_lint_rule_is_described() -> None:
    text = (DOCS / "how-to" / "policies.md").read_text("utf-8")
    source = (ROOT / "src" / "hauberk" / "policy" / "lint.py").read_text("utf-8")
    rules: set[object] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_finding":
            rules.update(it.value for it in node.args[1:2] if isinstance(it, ast.Constant))
        elif isinstance(node, ast.Tuple) and len(node.elts) > 1 and ast.unparse(node.elts[1]).startswith("Severity."):
            rules.update(it.value for it in node.elts[:1] if isinstance(it, ast.Constant))
    assert len(rules) > 10
    assert [rule for rule in rules if f"`{rule!s}`" not in text] == []


# README


def test_the_programs_of_the_readme_are_examples_and_short() -> None:
    programs = [block for block in BLOCKS[ROOT / "README.md"] if block.language == "python"]
    names = [block.notes["file"] for block in programs]
    assert names == ["examples/quickstart/app.py", "examples/records/app.py"]
    for block in programs:
        assert block.text == (ROOT / block.notes["file"]).read_text("utf-8")
        assert len(block.text.splitlines()) <= 25
