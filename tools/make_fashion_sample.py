"""Make `fastloop/data/fashion_sample.tgz` from the original Fashion-MNIST files.

The first 500 training and the first 100 test images of each class, in file order, become PNGs
named after their place in the original file: `fashion_sample/train/<class>/00023.png`. The
originals are four gzipped idx files, published at https://github.com/zalandoresearch/fashion-mnist.
Debian ships them: `apt-get install dataset-fashion-mnist` puts them in
/usr/share/datasets/fashion-mnist, without the file name and time that gzip had written into them.
What is in them is checked against known sums.

The same source gives the same bytes each time: members are sorted and have no owner, no time and
fixed permissions. What stays out of our hands is the code that packs: the stored archive was made
with Pillow 13.0.0 (zlib-ng 2.3.3) and zlib 1.2.13; others may pack the same pixels differently.

    python tools/make_fashion_sample.py --source DIR            make the archive
    python tools/make_fashion_sample.py --source DIR --check    make it again and compare
"""
import argparse
import gzip
import hashlib
import io
import struct
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, features

root = Path(__file__).resolve().parent.parent
target = root/'fastloop'/'data'/'fashion_sample.tgz'
debian = Path('/usr/share/datasets/fashion-mnist')
top = 'fashion_sample'
classes = ('t_shirt', 'trouser', 'pullover', 'dress', 'coat',
           'sandal', 'shirt', 'sneaker', 'bag', 'ankle_boot')
parts = {'train': ('train', 500), 'valid': ('t10k', 100)}  # folder: (original, images a class)
max_bytes = 3_500_000
sums = {  # sha256 of the unpacked idx files
    'train-images-idx3-ubyte': 'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888',
    'train-labels-idx1-ubyte': 'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9',
    't10k-images-idx3-ubyte': '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b',
    't10k-labels-idx1-ubyte': '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34',
}


def read_idx(source, name):
    "The array in the gzipped idx file `name` of folder `source`"
    data = gzip.decompress((Path(source)/f'{name}.gz').read_bytes())
    if hashlib.sha256(data).hexdigest() != sums[name]:
        raise SystemExit(f'{name}.gz in {source} is not the original Fashion-MNIST file')
    n_dims = data[3]
    shape = struct.unpack(f'>{n_dims}I', data[4:4 + 4*n_dims])
    return np.frombuffer(data, np.uint8, offset=4 + 4*n_dims).reshape(shape)


def png(image):
    "The bytes of `image` as a grey PNG without metadata"
    out = io.BytesIO()
    Image.fromarray(image).save(out, 'PNG', optimize=True, compress_level=9)
    return out.getvalue()


def members(source):
    "Name and content of every file of the sample"
    yield f'{top}/LICENSE', licence().encode()
    for part, (prefix, count) in parts.items():
        images = read_idx(source, f'{prefix}-images-idx3-ubyte')
        labels = read_idx(source, f'{prefix}-labels-idx1-ubyte')
        for label, name in enumerate(classes):
            for i in np.flatnonzero(labels == label)[:count]:
                yield f'{top}/{part}/{name}/{i:05d}.png', png(images[i])


def licence():
    "The MIT licence of the data, as it stands in NOTICE"
    text = (root/'NOTICE').read_text(encoding='utf-8')
    return text[text.index('The MIT License'):]


def build(source):
    "The archive, as bytes"
    tar_bytes = io.BytesIO()
    with tarfile.open(fileobj=tar_bytes, mode='w', format=tarfile.USTAR_FORMAT) as tar:
        for name, data in sorted(members(source)):
            member = tarfile.TarInfo(name)  # time, owner and group stay 0 and nameless
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    out = io.BytesIO()
    with gzip.GzipFile(filename='', mode='wb', compresslevel=9, fileobj=out, mtime=0) as packed:
        packed.write(tar_bytes.getvalue())
    return out.getvalue()


def content(archive):
    "What `archive` (bytes) holds, whatever packed it: a dict of name to pixels or text"
    res = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            data = tar.extractfile(member).read()
            if member.name.endswith('.png'):
                with Image.open(io.BytesIO(data)) as image: data = (image.size, image.tobytes())
            res[member.name] = data
    return res


def check(new, old):
    "Say how `new` compares with the stored `old`; the exit status"
    if new == old: return print(f'{target.name}: the same {len(old)} bytes') or 0
    same = content(new) == content(old)
    print(f'{target.name}: ' + ('the same images, packed differently (zlib or Pillow differ)'
                                if same else 'DIFFERENT images or names'))
    return 1


def main(argv=None):
    "Parse the command line and do what it says"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--source', type=Path, default=debian, help='folder with the .gz files')
    parser.add_argument('--check', action='store_true', help='only compare with the stored archive')
    args = parser.parse_args(argv)
    if not args.source.is_dir(): raise SystemExit(f'no folder {args.source}: see --help')
    archive = build(args.source)
    if len(archive) > max_bytes: raise SystemExit(f'{len(archive)} bytes is more than {max_bytes}')
    if args.check: return check(archive, target.read_bytes())
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(archive)
    print(f'{target.name}: {len(archive)} bytes, sha256 {hashlib.sha256(archive).hexdigest()}')
    print(f'zlib {zlib.ZLIB_RUNTIME_VERSION}, Pillow zlib {features.version("zlib")}'
          f' (zlib-ng {features.version("zlib_ng")})')


if __name__ == '__main__':
    sys.exit(main())
