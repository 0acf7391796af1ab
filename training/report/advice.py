"""The report's section on the diagnosis: each problem with its evidence and the next command to try."""

from training.report.material import Content, Material


def advice(material: Material) -> Content:
    return {"problems": material.metrics["diagnosis"]}
