"""What a function does, as text: its source and that of the helpers it calls."""

import inspect
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType


def source_with_helpers(function: Callable) -> str:
    """Source of a function and of the functions of its package that it refers to.

    An edit of any of them changes the text; an edit beside them does not.

    Raises:
        OSError, TypeError: when the source cannot be found: typed in a shell, or no
            function.
    """
    sources = {function: inspect.getsource(function)}
    waiting = [function]
    while waiting:
        for helper in _helpers(waiting.pop()):
            if helper not in sources:
                sources[helper] = inspect.getsource(helper)
                waiting.append(helper)
    return "\n".join(sources.values())


def _helpers(function: FunctionType) -> Iterator[FunctionType]:
    """Functions that a function names, directly or as `module.function`."""
    package = function.__module__.partition(".")[0]
    names = list(_names(function.__code__))
    found = [function.__globals__.get(name) for name in names]
    modules = [value for value in found if isinstance(value, ModuleType)]
    found += [getattr(module, name, None) for module in modules for name in names]
    for value in found:
        is_function = isinstance(value, FunctionType)
        if is_function and value.__module__.partition(".")[0] == package:
            yield value


def _names(code: CodeType) -> Iterator[str]:
    """Global names and attributes in a function, and in functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
