"""Traces are summed up by instruction and by module."""

import jax
import jax.numpy as jnp

from vla_jax.benchmark.profile import (
    SUMMARY,
    module_of,
    operation_names,
    own_times,
    summarize,
    trace,
)


def event(name, start, duration, thread=1):
    return {
        "ph": "X",
        "pid": 1,
        "tid": thread,
        "ts": start,
        "dur": duration,
        "args": {"hlo_op": name},
    }


def test_an_instruction_has_the_time_that_is_its_own():
    events = [
        event("while.1", 0, 100),
        event("dot.2", 10, 30),
        event("add.3", 40, 20),
        event("dot.2", 100, 50),
        event("add.3", 0, 7, thread=2),
        {"ph": "X", "pid": 1, "tid": 1, "ts": 0, "dur": 9, "name": "python"},
        {"ph": "M", "pid": 1, "name": "thread_name"},
    ]
    assert own_times(events) == {"while.1": 50, "dot.2": 80, "add.3": 27}


def test_what_lost_its_name_is_called_by_its_inputs():
    text = """
  %add.1 = f32[2] add(%p, %p), metadata={op_name="jit(f)/stem/add" id=1}
  %copy.2 = f32[2] copy(%add.1)
  ROOT %conv.3 = f32[2] fusion(%copy.2), kind=kCustom, calls=%inner.4
  %far.5 = f32[2] negate(%q)
"""
    assert operation_names(text) == {
        "add.1": "jit(f)/stem/add",
        "copy.2": "jit(f)/stem/add~",
        "conv.3": "jit(f)/stem/add~",
    }


def test_modules_are_told_with_their_direction():
    forward = "jit(train_step)/jvp(Policy.loss)/trunk/encoder/layer_0/dot_general"
    backward = "jit(train_step)/transpose(jvp(Policy.loss))/image_shared/conv1/conv"
    assert module_of(forward) == "trunk/encoder"
    assert module_of(backward) == "image_shared/conv1 backward"
    assert module_of("jit(train_step)/add") == "add"
    assert module_of("") == "(no name)"


def test_a_summary_ranks_modules_and_instructions():
    names = {"dot.2": "jit(train_step)/jvp(Policy)/trunk/dot", "add.3": ""}
    lines = summarize({"add.3": 1000.0, "dot.2": 3000.0}, names).splitlines()
    assert lines[0].startswith("4.0 ms")
    assert lines[1].split() == ["75.0%", "3.00", "ms", "trunk"]
    assert lines[4].split() == ["75.0%", "3.00", "ms", "dot.2", "trunk/dot"]
    assert "no instruction" in summarize({}, {})


def test_a_trace_of_a_program_names_its_parts(tmp_path):
    def function(x):
        with jax.named_scope("stem"):
            return jnp.tanh(x @ x)

    compiled = jax.jit(function).lower(jnp.ones((64, 64))).compile()
    trace(
        tmp_path,
        lambda: jax.block_until_ready(compiled(jnp.ones((64, 64)))),
        operation_names(compiled.as_text()),
    )
    summary = (tmp_path / SUMMARY).read_text()
    assert "stem" in summary and "trace.json.gz in https://ui.perfetto.dev" in summary
