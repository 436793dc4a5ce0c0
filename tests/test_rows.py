"Rows on disk: cells that come back exactly, and files that survive"
import csv
import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from logged import HalfDisk

from fastloop.callback.logger import (
    read_table,
)
from fastloop.rows import RowFile, csv_line, number_of, parse_cell, plain_value, row_ends

# ---- cells and rows ------------------------------------------------------------------------------
texts = st.text(st.characters(exclude_categories=('Cs',), exclude_characters='\0'), max_size=8)
numbers = st.one_of(st.none(), st.floats(), st.integers(), st.booleans())


def same(a, b):
    return a is b or a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


@settings(max_examples=60, deadline=None)
@given(names=st.lists(texts, min_size=1, max_size=5, unique=True), data=st.data(),
       separator=st.sampled_from(',;\t|^] -.e'))
def test_names_and_numbers_come_back_exactly(tmp_path_factory, names, data, separator):
    rows = data.draw(st.lists(st.lists(numbers, min_size=len(names), max_size=len(names)),
                              max_size=4))
    file = RowFile(tmp_path_factory.mktemp('rows')/'a.csv', separator)
    file.begin(names)
    for row in rows: file.write(names, row)
    table = read_table(file.path, separator)
    assert table.columns == names and len(table) == len(rows) == file.rows
    for got, want in zip(table.rows, rows):
        assert all(same(a, b) and type(a) is type(b) for a, b in zip(got, want)), (got, want)
    # an independent reader sees the same cells
    with open(file.path, newline='', encoding='utf-8') as f:
        assert next(csv.reader(f, delimiter=separator)) == names
    assert len(row_ends(file.path.read_bytes())) == len(rows)+1


@pytest.mark.parametrize('value, text', [
    (None, '#na#'), (float('nan'), 'nan'), (float('-inf'), '-inf'), (1e300, '1e+300'),
    (1/3, '0.3333333333333333'),
    (torch.tensor(.5), '0.5'), (torch.tensor(3), '3'), (True, 'True'), ('00:01', '00:01'),
    ([1, 2], '"[1, 2]"'), ('', '""'), (' a', '" a"')])
def test_cells_as_text(value, text): assert csv_line([value]) == text+'\n'


@pytest.mark.parametrize('text, value', [
    ('#na#', None), ('7', 7), ('-7', -7), ('1_000', '1_000'), ('1e5', 1e5), ('inf', math.inf),
    ('00:01', '00:01'), ('', ''), ('١', 1.), ('9'*300, int('9'*300)), ('9'*5000, math.inf)])
def test_texts_as_values(text, value): assert parse_cell(text) == value


@pytest.mark.parametrize('value, number', [
    (.5, .5), (True, 1.), (torch.tensor(2), 2.), (torch.tensor([[.5]]), .5), (math.inf, math.inf),
    ('0.5', None), (None, None), ({}, None), ([], None), ([1., 2.], None), (torch.ones(2), None),
    (1j, None)])
def test_the_number_in_a_cell(value, number): assert number_of(value) == number


def test_numpy_values_are_plain():
    numpy = pytest.importorskip('numpy')
    assert type(plain_value(numpy.float32(.5))) is float
    assert plain_value(numpy.arange(2)) == [0, 1]


@pytest.mark.parametrize('separator', ['', ', ', '"', '\n', '\0', None, 1])
def test_bad_separator(separator):
    with pytest.raises(ValueError, match='separator='): RowFile('a', separator)


# ---- the file ------------------------------------------------------------------------------------
def begun(path, rows=3, header=('epoch', 'a')):
    file = RowFile(path)
    file.begin(list(header))
    for i in range(rows): file.write(list(header), [i, i/4])
    return file


def test_append_goes_on_without_a_second_header(tmp_path):
    begun(tmp_path/'a.csv', 2)
    file = RowFile(tmp_path/'a.csv')
    file.begin(['epoch', 'a'], append=True)
    file.write(['epoch', 'a'], [0, 9.])
    assert file.rows == 3 and read_table(file.path).rows == [[0, 0.], [1, .25], [0, 9.]]


def test_append_to_other_columns_is_refused_and_changes_nothing(tmp_path):
    before = begun(tmp_path/'a.csv').path.read_bytes()
    with pytest.raises(ValueError, match='columns epoch, a, this run has epoch, b'):
        RowFile(tmp_path/'a.csv').begin(['epoch', 'b'], append=True)
    assert (tmp_path/'a.csv').read_bytes() == before


@pytest.mark.parametrize('content', [b'', b'\n\n', None])
def test_append_to_nothing_writes_the_header(tmp_path, content):
    if content is not None: (tmp_path/'a.csv').write_bytes(content)
    file = RowFile(tmp_path/'a.csv')
    file.begin(['epoch', 'a'], append=True)
    assert file.path.read_text() == 'epoch,a\n'


@pytest.mark.parametrize('cut', range(1, 6))
def test_an_unfinished_line_is_cut_with_a_warning(tmp_path, cut):
    path = begun(tmp_path/'a.csv').path
    os.truncate(path, path.stat().st_size-cut)
    file = RowFile(path)
    with pytest.warns(UserWarning, match='not finished and is cut off'):
        file.begin(['epoch', 'a'], append=True)
    file.write(['epoch', 'a'], [7, 1.])
    assert read_table(path)['epoch'] == [0, 1, 7]


def test_a_header_without_line_break_is_completed(tmp_path):
    (tmp_path/'a.csv').write_text('epoch,a')
    file = RowFile(tmp_path/'a.csv')
    file.begin(['epoch', 'a'], append=True)
    file.write(['epoch', 'a'], [0, 1.])
    assert file.path.read_text() == 'epoch,a\n0,1.0\n'


def test_a_file_from_a_spreadsheet_can_be_appended_to(tmp_path):
    (tmp_path/'a.csv').write_bytes('\ufeffepoch,a\r\n0,1.5\r\n'.encode())
    file = RowFile(tmp_path/'a.csv')
    file.begin(['epoch', 'a'], append=True)
    file.write(['epoch', 'a'], [1, 2.5])
    assert read_table(file.path).rows == [[0, 1.5], [1, 2.5]]


@given(rows=st.integers(0, 5), weird=st.booleans())
@settings(max_examples=12, deadline=None)
def test_cut_back_to_any_row(tmp_path_factory, rows, weird):
    header = ['epoch', 'a\n"b"' if weird else 'a']
    path = begun(tmp_path_factory.mktemp('cut')/'a.csv', 5, header).path
    file = RowFile(path)
    file.begin(header, rows=rows)
    assert file.rows == rows
    file.write(header, [99, 1.])
    assert read_table(path)['epoch'] == [*range(rows), 99]


def test_cut_back_says_what_is_missing(tmp_path):
    path = begun(tmp_path/'a.csv', 2).path
    header = ['epoch', 'a']
    with pytest.warns(UserWarning, match='2 rows where 5'): RowFile(path).begin(header, rows=5)
    path.unlink()
    with pytest.warns(UserWarning, match='gone or empty'): RowFile(path).begin(header, rows=2)
    assert path.read_text() == 'epoch,a\n'


def test_new_columns_make_the_file_wider(tmp_path):
    file = begun(tmp_path/'a.csv', 2, ['epoch', 'a', 'time'])
    file.write(['epoch', 'a', 'b,c', 'time'], [2, 1., 2., '00:01'])
    file.write(['epoch', 'a', 'time'], [3, 1., '00:02'])  # the column has gone again
    table = read_table(file.path)
    assert table.columns == ['epoch', 'a', 'b,c', 'time']
    assert table['b,c'] == [None, None, 2., None] and table['time'][2:] == ['00:01', '00:02']


def test_a_file_deleted_in_between_is_made_again(tmp_path):
    file = begun(tmp_path/'a.csv', 2)
    file.path.unlink()
    file.write(['epoch', 'a'], [2, 1.])
    assert read_table(file.path).rows == [[2, 1.]]


def test_a_line_edited_by_hand_is_not_glued_to_the_next(tmp_path):
    file = begun(tmp_path/'a.csv', 1)
    file.path.write_text('epoch,a\n0,5')
    with pytest.warns(UserWarning, match='shortened'): file.write(['epoch', 'a'], [1, 1.])
    assert read_table(file.path).rows == [[0, 5], [1, 1.]]


def test_a_row_written_in_part_is_cut_and_tried_again(tmp_path, monkeypatch):
    file, disk = begun(tmp_path/'a.csv', 1), HalfDisk(monkeypatch)
    disk.full = True
    for i in (1, 2):
        with pytest.raises(OSError, match='No space'): file.write(['epoch', 'a'], [i, i/4])
        assert file.rows == 1 and file.doubtful
    disk.full = False
    file.write(['epoch', 'a'], [3, .75])
    assert read_table(file.path).rows == [[i, i/4] for i in range(4)]


@pytest.mark.parametrize('size', [0, 3, 8, 15, 17, 18, 23, 24])
def test_a_file_that_was_shortened_from_outside_is_whole_again(tmp_path, size):
    header, path = ['epoch', 'train_loss'], tmp_path/'a.csv'
    file = RowFile(path)
    file.begin(header)
    for i in range(3): file.write(header, [i, i/8])
    whole = path.read_text().splitlines()
    left = [o for o in path.read_bytes()[:size].decode().splitlines(True) if o.endswith('\n')]
    os.truncate(path, size)
    assert size < len('\n'.join(whole))
    with pytest.warns(UserWarning, match='shortened'): file.write(header, [3, .5])
    kept = max(len(left)-1, 0)
    assert path.read_text().splitlines() == [whole[0], *whole[1:kept+1], '3,0.5']
    file.write(header, [4, 1.])
    assert path.read_text().splitlines()[-1] == '4,1.0' and file.rows == kept+2


def test_a_file_that_was_emptied_before_its_first_row_has_a_header(tmp_path):
    file = RowFile(tmp_path/'a.csv')
    file.begin(['a'])
    os.truncate(tmp_path/'a.csv', 0)
    with pytest.warns(UserWarning, match='shortened'): file.write(['a'], [1])
    assert (tmp_path/'a.csv').read_text() == 'a\n1\n'
