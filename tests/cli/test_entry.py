"""What a user can get wrong on the command line."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("arguments", "starts"),
    [
        (["evaluate.py"], "checkpoint is not set"),
        (["evaluate.py", "checkpoint=null"], "checkpoint is not set"),
        (
            [
                "evaluate.py",
                "checkpoint={folder}",
                "task=paper",
                "task.lowshot.lists=[typo.txt]",
                *(f"task.{name}.layers=[1,2]" for name in ("linear", "count", "distance", "depth", "segmentation")),
            ],
            "task.lowshot.lists=[typo.txt]: no such file: typo.txt",
        ),
        (
            ["train.py", "predictor=3"],
            "predictor=3: no such option; try base, giant, large, micro, small, tiny",
        ),
        (["train.py", "callbacks.pictures.x=3"], "callbacks.pictures.x=3: no such key"),
        (["train.py", "data.image_size=abc"], "data.image_size=abc: should be n or [h,w]"),
        (["train.py", "data.crop_scale=1"], "data.crop_scale=1: should be a list, [a,b]"),
        (["train.py", "--config-path", "nope"], "--config-path: not supported"),
        (["evaluate.py", "checkpoint=/nowhere"], "checkpoint=/nowhere: no such file"),
        (["evaluate.py", "checkpoint={folder}", "model.depth=3"], "model.depth: the shape comes from the checkpoint"),
        (["evaluate.py", "checkpoint={folder}", "layers=9"], "layers=9: the encoder has 2 blocks"),
        (["evaluate.py", "checkpoint={folder}", "task=linear"], "task.linear.layers=[1,4]: the encoder has 2 blocks"),
        (
            ["evaluate.py", "checkpoint={folder}", "task=lowshot", "task.lowshot.shares=[]", "task.lowshot.shots=[]"],
            "task.lowshot.shares=[]: needs at least one value here",
        ),
        (["train.py", "task=features"], "task=features: gives no metric"),
        (["train.py", "task=[knn,pictures]"], "task=pictures: training draws pictures anyway"),
        (["train.py", "callbacks.pictures=0"], "callbacks.pictures=0: should be greater"),
        *(
            (["evaluate.py", "checkpoint={folder}", "task=pictures", f"task.pictures.{wrong}"], f"task.pictures.{line}")
            for wrong, line in {
                "block=0": "block=0: the encoder has 2 blocks; try 1 to 2, or -1 for the last",
                "block=-3": "block=-3: the encoder has 2 blocks",
                "queries=[[2,0]]": "queries=2: should be less than or equal to 1",
                "queries=0.5": "queries=0.5: should be a list",
                "heads=0": "heads=0: should be greater",
            }.items()
        ),
        (["evaluate.py", "checkpoint={folder}", "task=nothing"], "task=nothing: no such option"),
        (["evaluate.py", "checkpoint={folder}", "data.channels=1"], "data.channels=1: the encoder was trained on 3"),
        (["evaluate.py", "checkpoint={folder}", "data.image_size=30"], "data.image_size=[30,30]: not divisible"),
        (["train.py", "run_dir={folder}"], "run_dir={folder}: contains a run; resume it with resume={folder}"),
        (
            ["train.py", "resume={folder}", "optimizer.lr=1", "seed=1"],
            "resume={folder}: seed=0 would become 1, optimizer.lr=0.0005 would become 1.0; omit that",
        ),
        (["train.py", "resume={folder}", "model=vit_small"], "resume={folder}: model.patch_size=4 would become 16, "),
        (["train.py", "resume={folder}", "optimizer.lrr=1"], "optimizer.lrr=1: no such key"),
        (["train.py", "data=digits", f"run_dir={'x' * 300}"], f"{'x' * 300}/config.yaml: File name too long; "),
        (["train.py", "resume=/nowhere"], "resume=/nowhere: no such run"),
        (["train.py", "data=folder", "data.root=/nowhere"], "data.root=/nowhere: no such folder"),
        (["train.py", "optimizer.lrr=1"], "optimizer.lrr=1: no such key; did you mean optimizer.lr?"),
        (["train.py", "schedule.warmup_epochs=100"], "schedule.warmup_epochs=100"),
        (["train.py", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["train.py", "--run", "--multirun"], "give only one of --run"),
        (["train.py", "--config-name", "nope"], "--config-name nope: no such file"),
        (["train.py", "model=null"], "model=null: takes the name of an option"),
        (["train.py", "=3"], "=3: there is no key before"),
        (["train.py", "run_dir="], "run_dir=: needs a folder"),
        (
            ["train.py", "data=digits", "data.val_fraction=0.9999"],
            "data.val_fraction=0.9999: leaves no training images",
        ),
        (["train.py", "data.source=nope.mod.f"], "data.source=nope.mod.f: cannot be imported: ModuleNotFoundError"),
        (["train.py", "data.source=os.path.join"], "data.source=os.path.join: fails"),
        (["train.py", "resume={folder}", "run_dir=other"], "run_dir=other: a resumed run stays"),
        (["evaluate.py", "checkpoint={folder}", "data=folder"], "data.root is not set"),
        (["evaluate.py", "checkpoint={folder}", "output=/proc/x"], "output=/proc/x: cannot be created"),
        (["evaluate.py", "checkpoint={folder}", "data.mean=[0,0,0]"], "data.mean=[0,0,0]: is stored with the encoder"),
        (["train.py", "masking=[block,random]"], "masking=[block,random]: takes one option"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(finished, invoke, arguments, starts):
    folder, _ = finished
    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    code, output, error = invoke(*(argument.format(folder=folder) for argument in arguments))
    assert code == 2
    assert error.startswith(f"error: {starts.format(folder=folder)}")
    assert error.count("\n") == 1
    assert not output
    assert sorted(path.stat().st_mtime_ns for path in folder.rglob("*")) == before


def test_help(invoke):
    code, output, _ = invoke("train.py", "--help", "model=vit_small")
    assert code == 0
    assert "model.width=384" in output
    assert "attention heads" in output
    assert "masking=block|multiblock|random|rasterized|reference" in output
    assert max(len(line) for line in output.splitlines()) < 200
    for name in ("headline", "train/loss", "health/rankme", "knnK", "lowshot_AMOUNT"):
        assert f"\n  {name} " in output  # of metric=
    output = invoke("evaluate.py", "--help")[1]
    assert "checkpoint" in output
    assert "depth_rmse                     Depth, RMSE (lower is better)" in output


def test_help_knows_the_options_of_config_dir(invoke, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("defaults:\n  - folder\n\nmean: [0.1, 0.2, 0.3]\n")
    code, output, _ = invoke("train.py", "--config-dir", tmp_path, "data=mine", "--help")
    assert code == 0
    assert "data.mean=[0.1,0.2,0.3]" in output
