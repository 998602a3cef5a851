"""What data= suggests against the options chosen is said when a run starts."""

from helpers import TINY

RUN = ("data=digits", "model=vit_base", *TINY, "model.heads=3", "schedule.max_steps=1", "schedule.warmup_steps=0")
LINE = "model.patch_size=4, suggested by data=digits; model=vit_base has 16"


def test_a_patch_size_of_the_data_s(invoke, tmp_path):
    code, out, err = invoke("train.py", *RUN, f"run_dir={tmp_path / 'run'}")
    assert code == 0, err
    assert f"\ndata     {LINE}\n" in out
    assert out.count("suggested by") == 1
    resumed = invoke("train.py", f"resume={tmp_path / 'run'}")
    assert resumed[0] == 0, resumed[2]
    assert "suggested" not in resumed[1]


def test_what_was_typed_is_no_suggestion(invoke, tmp_path):
    code, out, err = invoke("train.py", *RUN, "model.patch_size=8", f"run_dir={tmp_path / 'run'}")
    assert code == 0, err
    assert "suggested" not in out
    assert "4x4 patches of 8x8 pixels" in out
