"""`verify` with labels."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from crnn_deploy.cli.main import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_labels_count_what_is_right(tmp_path: Path) -> None:
    """Labelled with what the model reads, every image is right, so no label went to another image."""
    from crnn_deploy import Recognizer
    from crnn_deploy.models import DEFAULT

    paths = sorted((Path(__file__).parents[2] / "examples" / "images").glob("*.png"))
    rows = [f"{path}\t{text.text}\n" for path, text in zip(paths, Recognizer().read(paths), strict=True)]
    assert len(set(rows)) == len(paths) > 3
    labels = tmp_path / "labels.tsv"
    labels.write_text("".join(rows), encoding="utf-8")
    result = run("verify", DEFAULT, DEFAULT, "--labels", labels)
    assert result.exit_code == 0, result.output
    assert f"exact: {len(rows)} -> {len(rows)} of {len(rows)}" in result.stdout
    both = run("verify", DEFAULT, DEFAULT, "--labels", labels, "--images", tmp_path)
    assert both.exit_code == 2 and "exclude each other" in both.stderr
