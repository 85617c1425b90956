"""`nnunet-topo doctor`: each finding with its cause made up, then the whole of it once for real."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnunet_topo.cli import doctor
from nnunet_topo.cli.__main__ import main
from nnunet_topo.training import diagnosis
from nnunet_topo.training.diagnosis import Answer, Finding

PATHS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
GPU = {"torch": "2.13.0+cu130", "gpus": ["H200"], "mps": False, "triton": True}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PATHS, "nnUNet_extTrainer", "nnUNet_compile", diagnosis.OPT_OUT):
        monkeypatch.delenv(name, raising=False)


def statuses(findings: object) -> dict[str, str]:
    return {finding.name: finding.status for finding in findings}


class TestPaths:
    def test_not_set(self) -> None:
        assert statuses(diagnosis.path_findings()) == dict.fromkeys(PATHS, "fail")

    def test_set(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in PATHS:
            monkeypatch.setenv(name, str(tmp_path))
        assert statuses(diagnosis.path_findings()) == dict.fromkeys(PATHS, "ok")

    def test_missing_folder_fails_only_where_it_has_to_hold_something(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in PATHS:
            monkeypatch.setenv(name, str(tmp_path / "absent"))
        assert statuses(diagnosis.path_findings()) == dict(zip(PATHS, ("fail", "warn", "warn"), strict=True))

    def test_file_and_blank(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for name, value in zip(PATHS, ("  ", str(tmp_path / "file"), str(tmp_path)), strict=True):
            monkeypatch.setenv(name, value)
        assert list(statuses(diagnosis.path_findings()).values()) == ["fail", "fail", "ok"]

    def test_not_writable(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in PATHS:
            monkeypatch.setenv(name, str(tmp_path))
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        # Raw data may well lie on a read-only share.
        assert list(statuses(diagnosis.path_findings()).values()) == ["ok", "fail", "fail"]


class TestTorch:
    @pytest.mark.parametrize(
        ("torch", "torchvision"),
        [("2.13.0+cpu", "0.28.0+cpu"), ("2.5.1", "0.20.1"), ("2.8.0+cu128", "0.23.0+cu128"), ("2.1", "0.16.0")],
    )
    def test_mismatch_names_the_matching_torchvision(self, torch: str, torchvision: str) -> None:
        finding = diagnosis.torchvision_finding(Answer({"torch": torch}, "RuntimeError: operator torchvision::nms"))
        assert finding.status == "warn"
        assert f"'torchvision=={torchvision}'" in finding.mend
        assert "torchvision::nms" in finding.value

    def test_match(self) -> None:
        answer = Answer({"torch": "2.13.0", "torchvision": "0.28.0"})
        assert diagnosis.torchvision_finding(answer).status == "ok"

    def test_torch_itself_broken(self) -> None:
        finding = diagnosis.torchvision_finding(Answer({}, "OSError: libcudart.so"))
        assert finding.status == "fail"
        assert "libcudart" in finding.value

    @pytest.mark.parametrize(
        ("version", "status"), [("2.9.0", "warn"), ("2.9.1+cu128", "warn"), ("2.8.0", "ok"), ("2.19.0", "ok")]
    )
    def test_slow_convolutions_of_2_9(self, version: str, status: str) -> None:
        assert diagnosis.convolution_finding(Answer({"torch": version})).status == status

    @pytest.mark.parametrize(
        ("facts", "compile_", "expected"),
        [
            (GPU, None, ("ok", "ok")),
            (GPU | {"triton": False}, None, ("ok", "fail")),
            (GPU | {"triton": False}, "f", ("ok", "ok")),
            (GPU | {"gpus": [], "triton": False}, "1", ("warn", "ok")),
            ({"gpus": [], "mps": True}, None, ("warn", "ok")),
            ({}, None, ("warn", "ok")),
        ],
    )
    def test_device(
        self, facts: dict[str, object], compile_: str | None, expected: tuple, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if compile_ is not None:
            monkeypatch.setenv("nnUNet_compile", compile_)
        assert tuple(finding.status for finding in diagnosis.device_findings(Answer(facts))) == expected


class TestLzw:
    def test_is_read(self) -> None:
        assert diagnosis.lzw_finding().status == "ok"

    def test_without_imagecodecs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def imread(file: io.BytesIO) -> None:
            raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

        monkeypatch.setitem(sys.modules, "tifffile", SimpleNamespace(imread=imread))
        finding = diagnosis.lzw_finding()
        assert finding.status == "fail"
        assert "imagecodecs" in finding.mend

    def test_without_tifffile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tifffile", None)
        assert diagnosis.lzw_finding().status == "fail"


class TestInstallation:
    def test_versions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        installed = dict.fromkeys(diagnosis.DISTRIBUTIONS, "9.9") | {"nnunetv2": "2.8.1", "torch": "2.13.0"}
        monkeypatch.setattr(diagnosis, "_version", installed.get)
        assert set(statuses(diagnosis.version_findings()).values()) == {"ok"}
        del installed["imagecodecs"]
        installed["nnunetv2"] = "2.7.0"
        failed = [finding for finding in diagnosis.version_findings() if finding.status == "fail"]
        assert {finding.name: finding.mend for finding in failed} == {
            "nnunetv2": "pip install 'nnunetv2>=2.8,<3'",
            "imagecodecs": "pip install imagecodecs",
        }

    def test_start_up_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(diagnosis, "_copies", lambda: ["the only one"])
        assert statuses(diagnosis.installation_findings(Answer({"boot": "a/_boot.py"}))) == {"start-up file": "ok"}
        monkeypatch.setenv(diagnosis.OPT_OUT, "1")
        found = statuses(diagnosis.installation_findings(Answer({"boot": None})))
        assert found == {"start-up file": "warn", diagnosis.OPT_OUT: "warn"}

    def test_copies_that_hide_each_other(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "nnunet_topo").mkdir()
        (tmp_path / "nnunet_topo" / "__init__.py").touch()
        monkeypatch.syspath_prepend(tmp_path)
        copies = {finding.name: finding for finding in diagnosis.installation_findings(Answer())}["copies"]
        assert copies.status == "warn"
        assert str(tmp_path) in copies.value

    def test_trainers(self) -> None:
        own = Path(diagnosis.nnunet_topo.__file__).parent / "training" / "trainers.py"
        answer = Answer({"boot": "b", "A": str(own), "B": "elsewhere/trainers.py"}, "ImportError: no scipy")
        found = list(diagnosis.trainer_findings(["A", "B", "C"], answer))
        assert [finding.status for finding in found] == ["ok", "warn", "fail"]
        assert found[2].value == "ImportError: no scipy"

    def test_mend_of_a_trainer_that_is_not_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        (finding,) = diagnosis.trainer_findings(["A"], Answer({"boot": None}, "RuntimeError: Could not find"))
        assert "start-up file did not run" in finding.mend
        monkeypatch.setenv(diagnosis.OPT_OUT, "1")
        (finding,) = diagnosis.trainer_findings(["A"], Answer({"boot": "b"}, "RuntimeError: Could not find"))
        assert finding.mend == f"unset {diagnosis.OPT_OUT}"

    def test_names_are_those_of_the_classes(self) -> None:
        assert diagnosis.trainer_names() == [
            "nnUNetTrainerTopo",
            "nnUNetTrainerTopoProgressive",
            "nnUNetTrainerTopoSurface",
            "nnUNetTrainerTopoVessel",
        ]

    def test_folders_of_the_user(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join([str(tmp_path), "absent", "", "broken"]))
        folders = diagnosis.external_folders()
        assert folders == [str(tmp_path), "absent", "broken"]
        answers = {str(tmp_path): Answer(), "broken": Answer({}, "SyntaxError: invalid syntax")}
        found = list(diagnosis.external_findings(folders, answers))
        assert [finding.status for finding in found] == ["ok", "warn", "warn"]
        assert "SyntaxError" in found[2].value


class TestAsking:
    def test_facts_told_before_a_crash_are_kept(self) -> None:
        answer = diagnosis.ask("tell(a=1, b=sys.argv[1:]); print('noise'); raise KeyError('gone')", "x")
        assert answer == Answer({"a": 1, "b": ["x"]}, "KeyError: 'gone'")

    def test_silent_death(self) -> None:
        assert diagnosis.ask("import os; os._exit(9)") == Answer({}, "ended with status 9")

    def test_no_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(diagnosis, "PROBE_LIMIT_S", 0.2)
        assert diagnosis.ask("import time; time.sleep(60)").error.startswith("no answer within")

    def test_current_folder_is_not_on_the_path(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "module_of_the_current_folder.py").touch()
        monkeypatch.chdir(tmp_path)
        assert "No module named" in diagnosis.ask("import module_of_the_current_folder").error


class TestOutput:
    FINDINGS = (Finding("a", "ok", "1"), Finding("long name", "fail", "2", "do this"), Finding("b", "warn", "3"))

    def test_table(self) -> None:
        assert doctor.table(self.FINDINGS, in_colour=False).split("\n") == [
            "ok    a          1",
            "fail  long name  2",
            "                 -> do this",
            "warn  b          3",
            "",
            "1 ok, 1 warn, 1 fail",
        ]
        assert "\033[31mfail\033[0m" in doctor.table(self.FINDINGS, in_colour=True)

    @pytest.mark.parametrize(("findings", "status"), [(FINDINGS, 1), (FINDINGS[::2], 0)])
    def test_json_and_status(
        self,
        findings: tuple[Finding, ...],
        status: int,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(diagnosis, "diagnose", lambda: list(findings))
        assert main(["doctor", "--json"]) == status
        report = json.loads(capsys.readouterr().out)
        assert report["ok"] is (status == 0)
        assert [row["name"] for row in report["findings"]] == [finding.name for finding in findings]
        assert main(["doctor"]) == status
        assert "\033" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_whole_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in PATHS[1:]:
        monkeypatch.setenv(name, str(tmp_path))
    assert main(["doctor", "--json"]) == 1
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["findings"]}
    assert rows["nnUNet_raw"]["status"] == "fail"
    assert rows["nnUNet_raw"]["mend"].startswith("export nnUNet_raw=")
    assert rows["nnUNet_results"]["status"] == "ok"
    assert rows["LZW tif"]["status"] == "ok"
    assert {"python", "nnunet-topo", "nnunetv2", "torch", "torchvision", "GPU", "torch.compile"} <= rows.keys()
    assert {"nnUNetTrainerTopo", "nnUNetTrainerTopoProgressive", "other trainers", "3-D convolutions"} <= rows.keys()
