"""``b4client completion bash|zsh``: completion of the command line, made from the command line's own parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHELLS = ("bash", "zsh")
INTERFACE_OPTIONS = ("--wan", "--instance")


@dataclass(frozen=True)
class Command:
    """One command: its options with what they take, and the words it takes without one."""

    name: str
    help: str
    options: dict[str, tuple[str, str]]
    """option -> (kind of value: "", "file", "directory", "interface", "word" or choices between blanks; help)"""
    words: str


def add_parser(subparsers: Any, build: Callable[[], argparse.ArgumentParser]) -> None:
    """Register ``completion`` with an argparse subparsers action; ``build`` makes the whole parser."""
    completion = subparsers.add_parser("completion", help="print the completion script of a shell")
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(func=lambda args: _print(args.shell, build()))


def _print(shell: str, parser: argparse.ArgumentParser) -> int:
    print(render(shell, parser), end="")
    return 0


def render(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script for ``shell``."""
    found = list(commands(parser))
    return (_bash if shell == "bash" else _zsh)(found)


def commands(parser: argparse.ArgumentParser) -> Iterator[Command]:
    """The commands of a parser; a command with commands of its own takes those as words."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, sub in action.choices.items():
                yield _command(name, helps.get(name, ""), sub)


def _command(name: str, text: str, parser: argparse.ArgumentParser) -> Command:
    options: dict[str, tuple[str, str]] = {}
    words: list[str] = []
    for action in parser._actions:
        if not action.option_strings:
            words += [str(c) for c in action.choices or ()] or (["file"] if _kind(action) == "file" else [])
        for option in action.option_strings:
            options[option] = (_kind(action), action.help or "")
    return Command(name, text, options, " ".join(words))


def _kind(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices:
        return " ".join(map(str, action.choices))
    if any(option in INTERFACE_OPTIONS for option in action.option_strings):
        return "interface"
    hint = str(action.metavar or "")
    if hint == "DIR":
        return "directory"
    return "file" if action.type is Path or "FILE" in hint else "word"


# ---- bash


def _bash(found: list[Command]) -> str:
    names = " ".join(c.name for c in found)
    lines = [
        "# bash completion of b4client; made by: b4client completion bash",
        "_b4client() {",
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}",
        "    COMPREPLY=()",
        '    if [ "$COMP_CWORD" -eq 1 ]; then',
        f"        mapfile -t COMPREPLY < <(compgen -W '{names} --help --version' -- \"$cur\")",
        "        return",
        "    fi",
        "    case $command,$prev in",
    ]
    for c in found:
        for option, (kind, _) in c.options.items():
            if kind:
                lines.append(f"        {c.name},{option}) {_bash_value(kind)}; return ;;")
    lines += ["    esac", "    case $command in"]
    for c in found:
        offered = " ".join([*c.options, *(w for w in c.words.split() if w != "file")])
        files = " -f" if "file" in c.words.split() else ""
        lines.append(f"        {c.name}) mapfile -t COMPREPLY < <(compgen{files} -W '{offered}' -- \"$cur\") ;;")
    return "\n".join([*lines, "    esac", "}", "complete -o filenames -F _b4client b4client"]) + "\n"


def _bash_value(kind: str) -> str:
    source = {
        "file": "-f",
        "directory": "-d",
        "interface": '-W "$(ls /sys/class/net 2>/dev/null)"',
        "word": "",
    }.get(kind, f"-W '{kind}'")
    return f'mapfile -t COMPREPLY < <(compgen {source} -- "$cur")' if source else ":"


# ---- zsh


def _zsh(found: list[Command]) -> str:
    lines = [
        "#compdef b4client",
        "# zsh completion of b4client; made by: b4client completion zsh",
        "_b4client() {",
        "    local -a commands",
        "    commands=(",
        *(f"        '{c.name}:{_plain(c.help)}'" for c in found),
        "    )",
        "    if (( CURRENT == 2 )); then",
        "        _describe command commands",
        "        return",
        "    fi",
        "    local command=$words[2]",
        "    shift words",
        "    (( CURRENT-- ))",
        "    case $command in",
    ]
    for c in found:
        specs = [f"'{option}[{_plain(text)}]{_zsh_value(kind)}'" for option, (kind, text) in c.options.items()]
        if c.words:
            specs.append("'*:file:_files'" if c.words == "file" else f"'1:word:({c.words})'")
        lines.append(f"        {c.name}) _arguments {' '.join(specs)} ;;")
    return "\n".join([*lines, "    esac", "}", '_b4client "$@"']) + "\n"


def _zsh_value(kind: str) -> str:
    if not kind:
        return ""
    source = {"file": "_files", "directory": "_files -/", "interface": "_net_interfaces", "word": " "}
    return f":value:{source.get(kind, f'({kind})')}"


def _plain(text: str) -> str:
    return "".join("" if c in "'[]:`$\\" else c for c in text.replace("%%", "%")).strip()
