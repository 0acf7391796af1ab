"""What can go wrong in training, beside what `app.errors` has already.

ImageclassError
└── TrainingError
    ├── DataError           the data cannot be used as it is
    ├── LeakageError        what is learned would be tested on as well
    ├── OptionError         options that do not go together, or that this data cannot take
    ├── DivergedError       the loss is no number any more
    ├── CheckpointError     an unfinished training cannot be kept, or not be taken up again
    ├── WorkerLost          another worker of a distributed training has gone
    ├── ChiefPublishes      this worker has done its part, and nothing is wrong
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
