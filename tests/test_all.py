"`from fastloop.all import *` gives the public names, and nothing heavy"
import importlib
import json
from pathlib import Path

from processes import Program

root = Path(__file__).parent.parent

# public in their rooms, but of use only to somebody who changes the loop itself
LEFT_OUT = set("""
    AdaptiveConcatPool2d BasicBlock BatchTransform Bottleneck CourseLearner CourseRunner EventFiles
    FusedStep MiniaiLearner TrainCB data_loaders
    Hypers ImageDataset LearnView LearnerView MiniaiView ModelView OptView SeesRun
    TrainingSnapshot adapter_of adapters children create_body create_cnn_model create_head
    event_handlers event_names events fashion flat_cos_sched foreign_names handlers_of has_own
    introduce is_native line meant_event order_of place_of phases read_scalars read_table sgdr_sched
    split_model suggest_minimum suggest_slide suggest_steep suggest_valley written_for
    """.split())
# the names of the first edition: programs that import them go on working
FIRST_EDITION = set("""
    Adam AdamW ArchiveError AverageMetric AvgStats AvgStatsCallback BasicLearner BnFreeze
    CSVLogger Callback CallbackHandler CancelBackwardException CancelBatchException
    CancelEpochException CancelException CancelFitException CancelStepException
    CancelTrainException CancelValidException CancelValidateException
    ClassificationInterpretation CutMix DataBunch DownloadError EMACallback
    EarlyStoppingCallback EpochMetric F GeneralScheduler GradientAccumulation GradientClipping
    History ImageDataBunch LRFinder LabelSmoothingCrossEntropy LambdaCallback Learner
    LearnerCallback Metric MixUpCallback MixUpLoss MixedPrecision OneCycleScheduler
    OptimWrapper ParamScheduler ParameterModule Path ProgressCallback RMSprop RandomErase
    RandomFlip RandomRotate RandomShift Recorder ReduceLROnPlateauCallback RemoteMonitor
    ResNet Runner SGD SaveModelCallback SchedulePlayground ShortEpoch SmoothenValue Stepper
    StopAfterNBatches SuggestedLRs TensorBoardCallback TensorLoader TerminateOnNaNCallback
    TorchScheduler TraceCallback TrackerCallback TrainEvalCallback TrainingPhase URLs
    UnknownEvent VisionLearner WeightedMean accuracy accuracy_thresh annealer annealing_cos
    annealing_exp annealing_linear annealing_no annealing_poly as_metric atomic_write
    batch_norm_types camel2snake clip_grad cnn_learner class_metrics combine_scheds combined_cos
    cos_1cycle_anneal default_device default_tfms dice do_annealing_poly end_workers
    error_rate exp_rmspe explained_variance fbeta find_bs find_recorder fine_tune fit_flat_cos
    fit_one_cycle fit_sgdr flatten_model get_image_files image_folder_tensors imagenet_stats
    listify lr_find mae mean_absolute_error mean_squared_error mean_squared_logarithmic_error
    metric_name mixup model_device model_summary mse msle nn no_random np one_param partial
    plot_sched r2_score requires_grad resnet18 resnet34 resnet50 rmse rng_state
    root_mean_squared_error sched_cos sched_exp sched_lin sched_no sched_poly set_rng_state
    set_seed simple_cnn snake2camel to_bf16 to_detach to_device to_float to_fp16 to_fp32
    to_half to_np top_k_accuracy torch trainable_params untar_data vision_learner
    """.split())
NOT_ROOMS = {'all', 'demo', '__main__'}


def rooms():
    "Modules named by the notebooks"
    for nb in sorted((root/'nbs').glob('*.ipynb')):
        for cell in json.loads(nb.read_text())['cells']:
            for line in ''.join(cell['source']).splitlines():
                if line.startswith('#| default_exp'): yield line.split()[-1]


def test_every_public_name_is_there_or_left_out_on_purpose():
    import fastloop.all
    names = set()
    for name in rooms():
        if name in NOT_ROOMS or name.startswith('keras.'): continue  # a namespace of its own
        room = importlib.import_module(f'fastloop.{name}')
        names |= set(room.__all__) - set(vars(room).get('_places', ()))  # a star's, from elsewhere
    extra = {'torch', 'nn', 'F', 'np', 'partial', 'Path'}
    assert len(names) > 90
    assert set(fastloop.all.__all__) == (names - LEFT_OUT) | extra


def test_what_was_there_is_there():
    import fastloop.all
    assert len(FIRST_EDITION) > 150
    assert not FIRST_EDITION - set(fastloop.all.__all__)
    assert all(hasattr(fastloop.all, name) for name in FIRST_EDITION)


def test_star_import_in_a_fresh_process_loads_nothing_heavy():
    code = ('from fastloop.all import *\nimport sys\n'
            'print(len([Learner, nn, F, np, partial, Path]))\n'
            'print([o for o in ("matplotlib", "pandas", "ipywidgets", "IPython", "torch._dynamo") '
            'if o in sys.modules])')
    done = Program(code).end()
    assert done.stdout.split('\n')[:2] == ['6', '[]'], done.stderr
