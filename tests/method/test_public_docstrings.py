"""Docstrings of the public names tell shapes and errors: what they raise, take and return is what they say."""

import ast
import inspect
import re
import textwrap
from types import FunctionType, ModuleType

import pytest

import silent_gradients

SHAPE = re.compile(r"\[[^\]]*\]")
"""A shape as docstrings write it: [S, B, k]."""
DESCRIBED_BY_THE_CLASS = ("__init__", "__post_init__")


def own(thing):
    return getattr(thing, "__module__", "").startswith("silent_gradients")


def public_things():
    """The public classes and functions, those of public modules with them."""
    for name in silent_gradients.__all__:
        thing = getattr(silent_gradients, name)
        members = vars(thing).items() if isinstance(thing, ModuleType) else [(name, thing)]
        for member, value in members:
            if not member.startswith("_") and own(value) and (inspect.isclass(value) or inspect.isfunction(value)):
                yield member, value


def plain(attribute):
    """The function of a method, a property or a class method."""
    return getattr(attribute, "fget", None) or getattr(attribute, "__func__", None) or attribute


def functions():
    """Name, function and describing docstrings of every public function and method, each where it is first met."""
    met = set()
    for name, thing in public_things():
        if inspect.isfunction(thing):
            yield name, thing, [thing.__doc__]
            continue
        kin = [each for each in thing.__mro__ if own(each)]
        for method, attribute in inspect.getmembers_static(thing):
            function = plain(attribute)
            if not isinstance(function, FunctionType) or not own(function) or function in met:
                continue
            if method.startswith("_") and method not in (*DESCRIBED_BY_THE_CLASS, "__call__"):
                continue
            met.add(function)
            # A method that fulfils a contract is described there.
            docs = [plain(vars(each)[method]).__doc__ for each in kin if method in vars(each)]
            yield (
                f"{name}.{method}",
                function,
                docs + [each.__doc__ for each in kin if method in DESCRIBED_BY_THE_CLASS],
            )


FUNCTIONS = {name: (function, "\n".join(filter(None, docs))) for name, function, docs in functions()}


def raised(function):
    """Names of the exceptions that its own lines raise; none where a dataclass has no lines of its own."""
    if function.__code__.co_filename.startswith("<"):
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise))
    return {call.func.id for call in calls if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)}


def test_what_is_looked_at():
    assert {"Gaussian.kl_divergence", "Estimator.__call__", "gradient_variance", "create", "VAE.__init__"} <= set(
        FUNCTIONS
    )
    assert raised(silent_gradients.Posterior.check_finite) == {"NonFiniteError"}
    assert raised(silent_gradients.VAE.__init__) == {"EstimatorError", "ShapeError"}


@pytest.mark.parametrize(("name", "thing"), [pytest.param(*each, id=each[0]) for each in public_things()])
def test_classes_and_functions_are_described(name, thing):
    assert thing.__doc__
    assert not thing.__doc__.startswith(f"{name}(")  # as dataclasses and named tuples do it by themselves


@pytest.mark.parametrize("name", FUNCTIONS)
def test_methods_tell_their_errors(name):
    function, text = FUNCTIONS[name]
    assert text
    assert {error for error in raised(function) if error not in text} == set()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_methods_tell_the_shapes_of_their_tensors(name):
    function, text = FUNCTIONS[name]
    if any("Tensor" in str(annotation) for annotation in function.__annotations__.values()):
        assert SHAPE.search(text)
