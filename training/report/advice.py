"""The report's first section: the diagnosis, each finding with its evidence and the next command to try."""

from training.report.material import Content, Material


def advice(material: Material) -> Content:
    return {"findings": material.metrics["diagnosis"]}
