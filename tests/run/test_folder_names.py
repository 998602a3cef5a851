"""Names of the folders of runs and sweeps."""

from ijepa.run import folders


def test_slugs_hold_nothing_that_hydra_trips_over():
    slug = folders.slug(["model=vit_tiny", "data.image_size=[32,48]", "data.root=/a b/c=d"])
    assert not set(slug) & set("=,[]{}/ ")


def test_a_sweep_s_folder_depends_on_the_command_alone():
    arguments = ["data=digits", "seed=0,1", "optimizer.lr=1e-3,3e-4"]
    folder = folders.sweep_folder(None, "runs", arguments, ["data"])
    assert folder.parent.name == "runs"
    assert folder.name.startswith("sweep_seed-0-1_optimizer.lr-1e-3-3e-4_")
    assert folders.sweep_folder(None, "runs", arguments, ["data"]) == folder
    assert folders.sweep_folder(None, "runs", ["data=scenes", *arguments[1:]], ["data"]) != folder
    assert folders.sweep_folder(None, "runs", ["sweep=masking"], ["sweep"]).name == "sweep_masking"
    assert len(folders.sweep_folder(None, "runs", [f"data.root={'x,' * 200}"], []).name) < 120
