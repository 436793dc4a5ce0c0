"`from fastloop.all import *` gives the public names, and nothing heavy"
import importlib
import json
import subprocess
import sys
from pathlib import Path

root = Path(__file__).parent.parent

# public in their rooms, but of use only to somebody who changes the loop itself
LEFT_OUT = set("""
    AdaptiveConcatPool2d BasicBlock BatchRunner BatchTransform BatchView Bottleneck
    CallbackHolder CountsView Dialect Dispatcher EpochTable EventFiles Explanation FastaiV1
    FastaiV2 GatherPreds GuardedRun Hypers ImageDataset InputConv2d LearnView LoadersView
    LoggedTable LossHistory MethodsView Miniai MiniaiCalls MiniaiView NotDelivered OptView
    OwnView PartsView PhaseBar PlainDialect PoolFlatten PrintedText RecorderView RowFile
    RowSender RunState SeesRun TrainingSnapshot View ViewNotes accepts add_model_graph add_note
    as_callback as_changes axes_for batch_device better_way call_model callback_name cancel_for
    cancels cell_text check_fit check_functions check_headers check_hiding check_learner
    check_names check_weights check_word children copy_to_trace count_batches create_body
    create_cnn_model create_head csv_line default_loss dialect_of dialects draw_beta
    edit_distance evaluating event_handlers event_names event_of events explain_handlers
    find_callback find_lr find_schedulers first_loss first_tensor flat_cos_sched foreign_names
    format_time handler_method handler_name has_moments image_suffixes initial_state is_fastai
    json_value learner_state load_tensors map_tensors meant_event moments names_table
    nearest_name no_pair no_phase no_wd_types order_of parse_cell phases plain_value plot_phases
    plot_schedule probabilities progress_mode progress_modes read_cells read_labels read_scalars
    read_table required_arguments row_ends run_field run_state running_phases safe_path
    set_trainable sgdr_sched shared_state show_figure shown_address split_address split_model
    split_no_wd_params state_written suggest_minimum suggest_slide suggest_steep suggest_valley
    table_html tile_images translated unreduced view_kind view_names view_notes weight_image
    wider without_traceback write_embedding
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
        names |= set(importlib.import_module(f'fastloop.{name}').__all__)
    extra = {'torch', 'nn', 'F', 'np', 'partial', 'Path'}
    assert len(names) > 90
    assert set(fastloop.all.__all__) == (names - LEFT_OUT) | extra


def test_star_import_in_a_fresh_process_loads_nothing_heavy():
    code = ('from fastloop.all import *\nimport sys\n'
            'print(len([Learner, nn, F, np, partial, Path]))\n'
            'print([o for o in ("matplotlib", "pandas", "ipywidgets", "IPython", "torch._dynamo") '
            'if o in sys.modules])')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd='/')
    assert done.stdout.split('\n')[:2] == ['6', '[]'], done.stderr
