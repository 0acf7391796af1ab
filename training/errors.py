"""The errors of training, in addition to those of `app.errors`.

ImageclassError
└── TrainingError
    ├── DataError           the data cannot be used as it is
    ├── LeakageError        a model would be tested on pictures that it was trained on
    ├── OptionError         options that contradict each other, or do not suit the data
    ├── DivergedError       the loss is no longer a finite number
    ├── CheckpointError     the state of an unfinished training cannot be saved or loaded
    ├── WorkerLost          another worker of a distributed training has gone
    ├── ChiefPublishes      this worker is done, and the chief publishes: not a failure
    ├── PublishError        the bundle cannot be written
    └── NotGoodEnough       the model does not reach what was required of it
"""

from app.errors import ImageclassError


class TrainingError(ImageclassError):
    code = "training_error"


class DataError(TrainingError):
    code = "data_error"


class LeakageError(TrainingError):
    code = "leakage"


class OptionError(TrainingError):
    code = "option_error"


class DivergedError(TrainingError):
    code = "diverged"


class CheckpointError(TrainingError):
    code = "checkpoint_error"


class WorkerLost(TrainingError):
    code = "worker_lost"


class ChiefPublishes(TrainingError):
    code = "chief_publishes"


class PublishError(TrainingError):
    code = "publish_error"


class NotGoodEnough(TrainingError):
    code = "not_good_enough"
