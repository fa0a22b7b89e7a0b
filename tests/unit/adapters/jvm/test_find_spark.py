"""Where Spark's jars are looked for."""

import pytest

from adapters.interface import LoadFailed
from adapters.jvm.toolchain import find_spark


def lay_out(folder, version):
    """Lay out a Spark of a version."""
    (folder / "jars").mkdir(parents=True)
    (folder / "jars" / f"spark-core_2.13-{version}.jar").touch()
    return folder


def test_a_named_home_is_taken(tmp_path):
    """A folder that holds jars, or a folder `jars` with them, is Spark's."""
    home = lay_out(tmp_path / "spark", "4.1.2")
    for place in (home, home / "jars"):
        found = find_spark(str(place), {})
        assert (found.jars, found.version) == (home / "jars", "4.1.2")


def test_older_sparks_are_refused(tmp_path):
    """Spark 3 is named and refused."""
    home = lay_out(tmp_path / "spark", "3.5.9")
    with pytest.raises(LoadFailed, match=r"Spark 3\.5\.9 found at .*; Spark models need Spark 4"):
        find_spark(str(home), {})


def test_none_is_said(tmp_path, monkeypatch):
    """Without pyspark and SPARK_HOME the reason says what to install; SPARK_HOME alone is enough."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(LoadFailed, match="install pyspark 4 in this environment, or set SPARK_HOME"):
        find_spark("auto", {})
    with pytest.raises(LoadFailed, match=r"options\.spark_home: no Spark jars in "):
        find_spark(str(tmp_path), {})
    home = lay_out(tmp_path / "spark", "4.0.0")
    assert find_spark("auto", {"SPARK_HOME": str(home)}).version == "4.0.0"
