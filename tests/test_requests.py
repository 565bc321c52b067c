"""Requests such as ``etinynet_ssd_lite:width=0.35`` and their options."""

import pytest

from harness.errors import BadConfig
from harness.requests import Request, complete, parse, scalar, split


def test_a_name_alone_has_no_options() -> None:
    assert parse("mb2_ssd_lite") == Request(name="mb2_ssd_lite", options={})


def test_values_are_json_scalars_or_text() -> None:
    asked = parse("onnx_int8:calibration=entropy,opset=18,fold=true,width=0.35,note=null")
    assert asked.options == {
        "calibration": "entropy",
        "opset": 18,
        "fold": True,
        "width": 0.35,
        "note": None,
    }


def test_a_request_reads_back_from_its_text() -> None:
    asked = parse("a:x=1,y=text,z=false")
    assert parse(str(asked)) == asked


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:b", "'b' in 'a:b' is not key=value"),
        ("a:x=1,x=2", "option 'x' is given twice"),
        (":x=1", "has no name"),
        ("a:=1", "is not key=value"),
    ],
)
def test_malformed_requests_are_refused(text: str, said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        parse(text)


def test_lists_are_split_between_requests_not_inside_them() -> None:
    assert split("a,b:x=1,y=2,c") == ["a", "b:x=1,y=2", "c"]


def test_lists_and_objects_are_text() -> None:
    assert scalar("[1, 2]") == "[1, 2]"


def test_options_are_completed_by_defaults() -> None:
    assert complete({"x": 2}, {"x": 1.0, "y": "a"}, "model m") == {"x": 2.0, "y": "a"}
    assert complete({"y": 5}, {"x": 1.0, "y": "a"}, "model m") == {"x": 1.0, "y": "5"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"widht": 1.0}, "model m has no option 'widht': did you mean 'width'"),
        ({"width": "wide"}, "option 'width' of model m is 'wide', expected float"),
        ({"fold": 1}, "option 'fold' of model m is 1, expected bool"),
        ({"kind": True}, "option 'kind' of model m is True, expected str such as 'a'"),
        ({"width": True}, "option 'width' of model m is True, expected float"),
    ],
)
def test_wrong_options_name_the_owner_and_what_would_fit(
    given: dict[str, object], said: str
) -> None:
    with pytest.raises(BadConfig, match=said):
        complete(given, {"width": 1.0, "fold": False, "kind": "a"}, "model m")  # type: ignore[arg-type]  # wrong on purpose
