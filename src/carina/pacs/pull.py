"""Fetch one study from a DICOMweb service into the queue. Must not know what becomes of it."""

from carina.errors import InputError
from carina.pacs.dicomweb import DicomWeb
from carina.pacs.queue import Origin, Queue, Study


def pull(queue: Queue, service: DicomWeb, study_uid: str, origin: Origin) -> Study:
    """Fetch the CT series of a study; instances that are there already are not fetched again.

    Args:
        queue: where they go.
        service: where they are.
        study_uid: StudyInstanceUID.
        origin: what the queue is to know of the service.

    Raises:
        PacsError: the service says no, or something else than expected.
        InputError: the study has no CT images.
    """
    count = 0
    for series in service.series(study_uid, modality="CT"):
        for instance in service.instances(study_uid, series):
            count += 1
            if not queue.has(study_uid, series, instance):
                data = service.retrieve(study_uid, series, instance)
                queue.add(study_uid, series, instance, data, origin)
    if not count:
        raise InputError(f"{origin.url}: no CT images of study {study_uid}")
    queue.finished(study_uid)
    study = queue.study(study_uid)
    queue.audit.write("fetched", study=study.key, url=origin.url, instances=count)
    return study
