"""The files of a run, and which of them go when it goes back or begins anew."""

from ijepa.run_folder import CheckpointFolder, RunFolder


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_run_of_a_file(tmp_path):
    run = RunFolder(tmp_path)
    assert RunFolder.of(run.checkpoints.step(3)) == RunFolder.of(run.encoder) == run


def test_numbered_checkpoints_in_the_order_of_their_steps(tmp_path):
    touch(tmp_path, "step-1000000.ckpt", "step-000002.ckpt", "step-000010.ckpt", "step-mine.ckpt", "last.ckpt",
          "best-knn.ckpt", "best-rankme.ckpt", ".step-000011.ckpt.x1")  # fmt: skip
    folder = CheckpointFolder(tmp_path)
    assert [path.name for path in folder.numbered()] == ["step-000002.ckpt", "step-000010.ckpt", "step-1000000.ckpt"]
    assert folder.numbered()[1] == folder.step(10)
    assert folder.all_best() == {"knn": folder.best("knn"), "rankme": folder.best("rankme")}
    assert [path.name for path in folder.unfinished()] == [".step-000011.ckpt.x1"]
    assert not CheckpointFolder(tmp_path / "nowhere").numbered()


def test_configurations_of_resumes(tmp_path):
    run = RunFolder(tmp_path)
    assert run.newest_config() == run.config
    touch(tmp_path, "config.yaml", "config-000010.yaml", "config-000002.yaml", "config-000002-10.yaml",
          "config-000002-2.yaml", "config-mine.yaml")  # fmt: skip
    order = [(2, "config-000002.yaml"), (2, "config-000002-2.yaml"), (2, "config-000002-10.yaml"),
             (10, "config-000010.yaml")]  # fmt: skip
    assert [(step, path.name) for step, path in run.later_configs()] == order
    newest = [run.newest_config(step).name for step in (1, 2, 9, 10, None)]
    assert newest == ["config.yaml", *["config-000002-10.yaml"] * 2, *["config-000010.yaml"] * 2]
    assert [run.next_config(step).name for step in (2, 3)] == ["config-000002-3.yaml", "config-000003.yaml"]


def test_what_a_run_that_goes_back_drops(tmp_path):
    kept = ["config.yaml", "config-000003.yaml", "metrics.csv", "health.json", "checkpoints/step-000004.ckpt",
            "pictures/features/step-000002.png", "pictures/features/step-of-mine.png", "pictures/mine.png",
            "evaluation/knn/metrics.json"]  # fmt: skip
    gone = ["config-000004.yaml", "summary.json", "encoder.safetensors", "pictures/features/step-000004.png",
            "pictures/masks.png", "pictures/curves.png"]  # fmt: skip
    touch(tmp_path, *kept, *gone)
    RunFolder(tmp_path).drop_after(3)
    assert names(tmp_path) == set(kept)


def test_a_run_that_begins_anew_keeps_what_is_not_its_own(tmp_path):
    touch(tmp_path, "config.yaml", "metrics.csv", "health.json", "checkpoints/.step-1.ckpt.x", "pictures/a.png",
          "wandb/run", "tensorboard/events.1", "notes.txt")  # fmt: skip
    RunFolder(tmp_path).clear()
    assert names(tmp_path) == {"notes.txt"}
