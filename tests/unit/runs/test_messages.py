import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from animation_studio.errors import PromptFailedError, PromptRejectedError
from animation_studio.runs.messages import (
    OutputFile,
    Progress,
    RunState,
    check_prompt,
    output_files,
    rejection,
)

PROMPT = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 1}},
    "7": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
}
ID = "0b4ed4a6-6dd2-4f1c-9f8c-2e3f8f6d0a11"

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
kinds = st.sampled_from(
    ["status", "executing", "progress", "executed", "execution_cached", "execution_error",
     "execution_interrupted", "execution_success", "progress_state", "unheard_of"]
)  # fmt: skip
keys = st.sampled_from(["node", "display_node", "value", "max", "nodes", "output", "node_id"])


def message(kind, **data):
    return {"type": kind, "data": {"prompt_id": ID, **data}}


def state():
    return RunState(ID, PROMPT)


def test_a_run_is_followed_to_its_end():
    run = state()
    shown = [
        run.feed(item)
        for item in (
            message("execution_start"),
            message("execution_cached", nodes=[]),
            message("executing", node="3", display_node="3"),
            message("progress", node="3", value=1, max=4),
            message("executed", node="7", output={"images": [{"filename": "a.png"}]}),
            message("execution_success"),
        )
    ]
    assert [item for item in shown if item] == [
        Progress("3", "KSampler", 0, 0, "running"),
        Progress("3", "KSampler", 1, 4, "step"),
    ]
    assert not run.finished
    assert run.feed(message("executing", node=None)) is None
    assert run.finished
    result = run.result(2.5)
    assert result.files == (OutputFile("7", "a.png", "", "output", "image"),)
    assert (result.prompt_id, result.seconds, result.cached) == (ID, 2.5, ())


def test_a_node_inside_an_expanded_one_is_shown_as_the_one_the_user_sees():
    progress = state().feed(message("executing", node="3.0.0.9", display_node="3"))
    assert progress == Progress("3", "KSampler", 0, 0, "running")


def test_unchanged_nodes_are_counted():
    run = state()
    progress = run.feed(message("execution_cached", nodes=["3"]))
    assert progress == Progress(None, None, 0, 0, "1 of 2 nodes are unchanged")
    assert run.cached == ("3",)


def test_a_blocked_output_is_a_failure_but_not_the_end():
    run = state()
    run.feed(
        message(
            "execution_error",
            node_id="7",
            node_type="SaveImage",
            exception_type="ExecutionBlocked",
            exception_message="Execution Blocked: no face\nfound",
        )
    )
    assert not run.finished
    run.feed(message("executing", node=None))
    with pytest.raises(PromptFailedError) as failure:
        run.result(1.0)
    assert str(failure.value) == (
        "Node 7 (SaveImage) failed: ExecutionBlocked: Execution Blocked: no face found"
    )


def test_an_interruption_names_the_node():
    run = state()
    run.feed(message("execution_interrupted", node_id="3", node_type="KSampler"))
    with pytest.raises(PromptFailedError, match=r"^The run was interrupted at node 3 \(KSampler\)"):
        run.result(1.0)


def test_history_tells_what_the_messages_would_have():
    run = state()
    run.settle(
        {
            "outputs": {"7": {"images": [{"filename": "a.png", "type": "output"}]}},
            "status": {
                "status_str": "success",
                "messages": [["execution_cached", {"nodes": ["3"], "prompt_id": ID}]],
            },
        }
    )
    assert run.finished
    assert run.cached == ("3",)
    assert [file.filename for file in run.result(0.1).files] == ["a.png"]


def test_history_without_a_reason_is_still_a_failure():
    run = state()
    run.settle({"outputs": {}, "status": {"status_str": "error", "messages": []}})
    with pytest.raises(PromptFailedError, match="log says why"):
        run.result(1.0)


@given(st.fixed_dictionaries({"type": kinds, "data": values | st.dictionaries(keys, values)}))
def test_other_prompts_messages_change_nothing(foreign):
    run = state()
    assert run.feed(foreign) is None
    assert run == state()


@given(st.lists(st.tuples(kinds, st.dictionaries(keys, values)), max_size=6))
def test_any_message_is_taken(messages):
    run = state()
    for kind, data in messages:
        shown = run.feed(message(kind, **data))
        assert shown is None or isinstance(shown, Progress)
    ends = [data.get("node") is None for kind, data in messages if kind == "executing"]
    assert run.finished == any(ends)


@given(st.dictionaries(st.text(max_size=4), st.dictionaries(st.text(max_size=6), values)))
def test_files_come_from_entries_with_a_filename_only(outputs):
    for file in output_files(outputs):
        assert isinstance(file.filename, str)
        assert file.node in outputs


def test_files_of_every_kind():
    answer = {
        "images": [{"filename": "a.png", "subfolder": "luca", "type": "output"}],
        "records": [{"filename": "a.json", "subfolder": "luca", "type": "output"}],
        "animated": (True,),
        "text": ["words"],
    }
    assert list(output_files({"9": answer})) == [
        OutputFile("9", "a.png", "luca", "output", "image"),
        OutputFile("9", "a.json", "luca", "output", "record"),
    ]


texts = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)


@given(
    st.dictionaries(
        texts,
        st.tuples(texts, st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=3)),
        min_size=1,
        max_size=3,
    )
)
def test_every_error_is_one_sentence_that_says_where(nodes):
    answer = {
        "error": {"type": "prompt_outputs_failed_validation", "message": "x", "details": ""},
        "node_errors": {
            node: {
                "class_type": class_type,
                "errors": [
                    {
                        "message": text,
                        "details": f"{name}: {why}",
                        "extra_info": {"input_name": name},
                    }
                    for name, text, why in errors
                ],
            }
            for node, (class_type, errors) in nodes.items()
        },
    }
    said = rejection(answer)
    expected = [
        f"Node {node} ({class_type}), input {name}: {text}: {why}."
        for node, (class_type, errors) in nodes.items()
        for name, text, why in errors
    ]
    if len(expected) == 1:
        assert said == f"ComfyUI refused the prompt: {expected[0]}"
    else:
        head, *lines = said.splitlines()
        assert head == "ComfyUI refused the prompt:"
        assert lines == [f"- {sentence}" for sentence in expected]


@given(values | st.dictionaries(st.sampled_from(["error", "node_errors"]), values))
def test_any_answer_is_read(answer):
    said = rejection(answer)
    assert said is None or said.startswith("ComfyUI refused the prompt:")


def test_an_accepted_prompt_has_no_reason():
    assert rejection({"prompt_id": ID, "number": 1, "node_errors": {}}) is None


def test_long_lists_are_cut():
    details = f"lora: 'x' not in {json.dumps(['long name'] * 200)}"
    error = {
        "message": "Value not in list",
        "details": details,
        "extra_info": {"input_name": "lora"},
    }
    said = rejection({"node_errors": {"2": {"class_type": "L", "errors": [error]}}})
    assert said.startswith(
        "ComfyUI refused the prompt: Node 2 (L), input lora: Value not in list: 'x' not in ["
    )
    assert len(said) < 520


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ({}, "The prompt is empty or not a JSON object of nodes by their id."),
        ([1], "The prompt is empty or not a JSON object of nodes by their id."),
        ({"3": {"inputs": {}}}, "Node 3 of the prompt has no class_type."),
        ({"3": {"class_type": "A"}}, "Node 3 (A) has no inputs; write {} for none."),
        (
            {"7": {"class_type": "Save", "inputs": {"images": ["99", 0]}}},
            "Node 7 (Save), input images: it is linked to node 99, which is not in the prompt.",
        ),
    ],
)
def test_broken_prompts_are_refused_before_they_are_sent(prompt, said):
    with pytest.raises(PromptRejectedError) as refused:
        check_prompt(prompt)
    assert str(refused.value) == said


def test_the_pages_format_is_recognised():
    with pytest.raises(PromptRejectedError, match="workflows/api/"):
        check_prompt({"nodes": [{"id": 3}], "links": [], "version": 0.4})


def test_a_good_prompt_passes():
    check_prompt(PROMPT)
    assert rejection({}) is None
