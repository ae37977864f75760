"""PyTorch's files without PyTorch. tests/golden/state_dict.pth is what torch 2.13 saved (parity tests read more of its
files):

    torch.save({"ema": OrderedDict(floats=torch.arange(6.).reshape(2, 3), turned=torch.arange(6.).reshape(2, 3).T,
        half=torch.arange(4).bfloat16()[1:], yes=torch.tensor([True, False]), none=torch.zeros(0, 3),
        one=torch.tensor(7), learnt=torch.nn.Parameter(torch.ones(2)))}, "state_dict.pth")
"""

import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from janus_jax.checkpoints import tensorfiles, torchfile
from janus_jax.errors import UserError

GOLDEN = Path(__file__).parent.parent / "golden" / "state_dict.pth"


class Trap:
    """Runs code when it is unpickled."""

    ran = False

    def __reduce__(self):
        return setattr, (Trap, "ran", True)


def archive(path, content, **members):
    """A file as torch lays it out."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", content)
        for name, data in members.items():
            file.writestr(f"x/{name}", data)
    return path


def refusal(path):
    with pytest.raises(UserError) as caught:
        torchfile.read(path)
    return str(caught.value)


def test_what_torch_saved():
    got = tensorfiles.read_file(GOLDEN)
    floats = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = {
        "floats": floats,
        "turned": floats.T,
        "half": np.array([1, 2, 3], ml_dtypes.bfloat16),
        "yes": np.array([True, False]),
        "none": np.zeros((0, 3), np.float32),
        "one": np.array(7, np.int64),
        "learnt": np.ones(2, np.float32),
    }
    assert list(got) == list(expected)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype and not (got[name].size and got[name].flags.writeable)
        np.testing.assert_array_equal(got[name], value)


def test_a_view_lies_in_its_storage():
    storage = np.arange(6.0)
    np.testing.assert_array_equal(torchfile.view(storage, 1, (2, 2), (2, 1)), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(torchfile.view(storage, 0, (2, 3), (0, 1)), [[0, 1, 2], [0, 1, 2]])
    for offset, size, stride in ((3, (2, 2), (2, 1)), (0, (7,), (1,)), (-1, (1,), (1,)), (5, (2,), (-1,)), (6, (), ())):
        with pytest.raises(pickle.UnpicklingError):
            torchfile.view(storage, offset, size, stride)


def test_code_is_refused_and_not_run(tmp_path):
    path = archive(tmp_path / "trap.pth", pickle.dumps({"w": Trap()}, 2))
    assert "holds no plain tensors (it names " in refusal(path) and "setattr" in refusal(path)
    assert not Trap.ran


def test_damage_is_one_line(tmp_path):
    path, whole = tmp_path / "a.pth", GOLDEN.read_bytes()
    for content in (b"", b"nonsense", pickle.dumps({"w": 1}), whole[:1000], whole[:-1]):
        path.write_bytes(content)
        assert "holds no plain tensors (" in refusal(path) and "\n" not in refusal(path)
    assert "big-endian" in refusal(archive(path, pickle.dumps({}), byteorder="big"))
    for value in ([1, 2], {"step": 3}, {"ema": {"a": 1}}):
        assert "is no state dict" in refusal(archive(path, pickle.dumps(value)))
    assert "holds module and ema: save the one" in refusal(archive(path, pickle.dumps({"module": {}, "ema": {}})))
    assert "is missing: copy the checkpoint again" in refusal(tmp_path / "absent.pth")


def test_a_storage_that_is_cut_short(tmp_path):
    with zipfile.ZipFile(GOLDEN) as golden:
        pickled, names = golden.read("state_dict/data.pkl"), golden.namelist()
        members = {n.removeprefix("state_dict/"): golden.read(n) for n in names if "/data/" in n}
    assert len(torchfile.read(archive(tmp_path / "good.pth", pickled, **members))) == 7
    members["data/0"] = members["data/0"][:-1]
    assert "the storage 0 is compressed, or cut short" in refusal(archive(tmp_path / "cut.pth", pickled, **members))
    del members["data/0"]
    assert "holds no plain tensors" in refusal(archive(tmp_path / "gone.pth", pickled, **members))
