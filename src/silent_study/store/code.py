"""Digests of the source code of a run's numbers.

The code of a training is every definition (a function, class or variable at the top of a module) that its entry points
reach by name, in the method and in the rooms that compute. Comments, docstrings, annotations of functions, errors,
layout and moves of definitions between files do not change a digest; any other edit does.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from silent_study.store.documents import Code

SOURCE = Path(__file__).resolve().parents[2]
"""Folder of the packages."""

ROOMS = (
    *("silent_gradients/**/*.py", "silent_study/data/**/*.py", "silent_study/evaluation/**/*.py"),
    *("silent_study/training/**/*.py", "silent_study/settings.py"),
)
"""Files, below ``SOURCE``, of the code that computes numbers."""

TRAINING = tuple(f"silent_study.training.{module}" for module in ("device", "loop", "stack", "steps"))
EVALUATION = ("silent_study.evaluation.runs",)
READING = ("silent_study.data.prepare", "silent_study.data.sources", "silent_study.data.sources.own")
"""Modules all definitions of which are entry points: of a training, an evaluation, the preparation of data."""

LATENTS, LIMITS = "silent_study.evaluation.latents", "silent_study.evaluation.known_limits:kept_factor_analysis"
"""Entry points of what a gathering computes and keeps."""

ESTIMATORS = "silent_gradients.estimators"
"""Package of the estimators, which a training finds by their registered names."""

EFFECTS = "*"
"""Name that stands for the statements at the top of a module that define nothing."""

_WITHOUT_EFFECT = {"annotation", "ctx", "kind", "returns", "type_comment", "type_params"}
"""Fields of syntax trees that do not change what a function computes."""

Name = tuple[str, str]
"""A definition: module and name."""


@cache
def training_code(estimator: str, source: Path = SOURCE) -> Code:
    """Return the code of a training with the estimator of a registered name."""
    modules = _modules(source)
    return modules.code(*TRAINING, *modules.registered(estimator))


@cache
def evaluation_code(estimator: str, source: Path = SOURCE) -> Code:
    """Return the code of the evaluation of a run with the estimator of a registered name."""
    modules = _modules(source)
    return modules.code(*EVALUATION, *modules.registered(estimator))


@cache
def reading_code(source: Path = SOURCE) -> Code:
    """Return the code that prepares data sets."""
    return _modules(source).code(*READING)


@cache
def kept_code(entry: str, source: Path = SOURCE) -> Code:
    """Return the code of an entry point: ``LATENTS`` or ``LIMITS``."""
    return _modules(source).code(entry)


@dataclass
class _Definition:
    """A statement at the top of a module as text, and what it names: a name, or a name and its attribute."""

    text: str
    named: set[Name]


@dataclass
class _Module:
    """The definitions of a module, and module and name (a module has the name "") of what it imports, by name."""

    file: str
    definitions: dict[str, list[_Definition]]
    imported: dict[str, Name]


class _Modules(dict[str, _Module]):
    """The modules of the rooms by name, parsed when they are first asked for."""

    def __init__(self, source: Path) -> None:
        self.source = source
        files = (path.relative_to(source) for room in ROOMS for path in source.glob(room))
        self.files = {".".join(file.with_suffix("").parts).removesuffix(".__init__"): file for file in files}

    def __missing__(self, name: str) -> _Module:
        file = self.files[name]
        body = ast.parse((self.source / file).read_bytes(), file).body
        module = self[name] = _Module(file.as_posix(), {EFFECTS: []}, dict(_imported(body, self.files)))
        for statement in body:
            if names := _defined(statement):
                definition = self._definition(statement, module.imported)
                for each in names:
                    module.definitions.setdefault(each, []).append(definition)
        return module

    def _definition(self, statement: ast.stmt, imported: Mapping[str, Name]) -> _Definition:
        named: set[Name] = set()
        text = _tree(statement, named)
        meant = {name: imported[name] for name, _ in named if name in imported}
        # The modules of the rooms do not matter, so that definitions can be moved.
        shown = sorted(f"{name}={'' if there[0] in self.files else there}.{there[1]}" for name, there in meant.items())
        return _Definition(f"{text} {shown}", named)

    def reached(self, entries: Iterable[str]) -> set[Name]:
        """Return the definitions that entry points (``module`` or ``module:name``) reach by name."""
        found: set[Name] = set()
        to_visit = [(module, name) for module, _, name in (entry.partition(":") for entry in entries)]
        while to_visit:
            module, name = to_visit.pop()
            if module not in self.files or (module, name) in found:  # the first: no numbers depend on it
                continue
            here = self[module]
            if not name:
                to_visit += [(module, each) for each in here.definitions]
            elif name in here.definitions:
                found.add((module, name))
                # Whatever is imported is executed: the module, its packages and what it imports itself.
                executed = [module, module.rpartition(".")[0]]
                executed += [of for of, _ in here.imported.values()] if name == EFFECTS else []
                to_visit += [(each, EFFECTS) for each in executed]
                for definition in here.definitions[name]:
                    for first, attribute in definition.named:
                        of, there = (module, first) if first in here.definitions else here.imported.get(first, ("", ""))
                        to_visit.append((of, there or attribute))
            elif name in here.imported:  # exported again
                to_visit.append(here.imported[name])
        return found

    def registered(self, estimator: str) -> Iterator[str]:
        """Yield the class that registers an estimator under its name; nothing for one of another package."""
        assigned = f"Assign(targets=[Name(id='name')],value=Constant(value={estimator!r}))"
        for module in self.files:
            if module.startswith(ESTIMATORS):
                for name, definitions in self[module].definitions.items():
                    if any(assigned in each.text for each in definitions):
                        yield f"{module}:{name}"

    def code(self, *entries: str) -> Code:
        """Return the code that entry points reach."""
        texts: dict[str, set[str]] = {}
        for module, name in self.reached(entries):
            if definitions := self[module].definitions[name]:
                texts.setdefault(self[module].file, set()).update(each.text for each in definitions)
        files = {file: _digest(texts[file]) for file in sorted(texts)}
        return {"digest": _digest(set().union(*texts.values())), "files": files}


_modules = cache(_Modules)


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()[:16]


def _imported(body: Iterable[ast.stmt], known: Container[str]) -> Iterator[tuple[str, Name]]:
    """Yield what the statements of a module import, also inside functions."""
    for statement in body:
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                whole = f"{statement.module}.{alias.name}"
                meant = (whole, "") if whole in known else (statement.module or "", alias.name)
                yield alias.asname or alias.name, meant
        elif isinstance(statement, ast.Import):
            for alias in statement.names:  # `import a.b` binds the package `a`; no name has the dots of the module
                yield alias.asname or alias.name.partition(".")[0], (alias.name, "")
                yield alias.name, (alias.name, "")
        for block in ("body", "orelse", "finalbody", "handlers"):
            yield from _imported(getattr(statement, block, ()), known)


def _defined(statement: ast.stmt) -> list[str]:
    """Return the names that a statement at the top of a module defines, ``EFFECTS`` if it does something else."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign() | ast.AnnAssign(target=ast.Name()):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            nodes = [node for target in targets for node in ast.walk(target)]
            if not any(isinstance(node, ast.Attribute | ast.Subscript) for node in nodes):
                return [node.id for node in nodes if isinstance(node, ast.Name)]
        case ast.Import() | ast.ImportFrom() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return []
        case ast.Expr(value=ast.Constant()):
            return []
    return [EFFECTS]


def _tree(node: object, named: set[Name]) -> str:
    """Return a syntax tree as text that is the same in every version of Python; add what it names to ``named``."""
    match node:
        case ast.Raise():
            return "Raise"
        case ast.Expr(value=ast.Constant(value=str())):  # a docstring
            return ""
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            named.add((name, attribute))
        case ast.Name(id=name):
            named.add((name, ""))
    if isinstance(node, list):
        return f"[{','.join(filter(None, (_tree(each, named) for each in node)))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    shown = []
    for name in node._fields:
        value = getattr(node, name, None)
        # An annotation leads to the class whose methods are called, though it has no effect itself; that of a variable
        # decides what are the fields of a dataclass.
        text = _tree(value, named)
        if value not in (None, []) and (name not in _WITHOUT_EFFECT or isinstance(node, ast.AnnAssign)):
            shown.append(f"{name}={text}")
    return f"{type(node).__name__}({','.join(shown)})"
