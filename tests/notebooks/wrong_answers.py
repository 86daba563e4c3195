"""Answers that somebody could give to the lessons' exercises, and that aren't right: three or more for each one.

Each is a piece of code in place of the stub; ANSWER is the name that is asked for. What is wrong with it stands beside
it, or in the exercise's own check.
"""

from __future__ import annotations


def method(kind: str, body: str, name: str = "forward", arguments: str = "x") -> str:
    """A class that inherits from ``kind`` and overrides one method, called as the exercise calls it."""
    lines = "\n        ".join(body.splitlines())
    return f"class ANSWER({kind}):\n    def {name}(self, {arguments}):\n        {lines}\n"


def gate(body: str) -> str:
    lines = "\n        ".join(["super().__init__(channels)", "half = channels // 2", *body.splitlines()])
    return f"class ANSWER(LGAG):\n    def __init__(self, channels):\n        {lines}\n"


EARLY = """class EarlyEUCB(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.mix = nn.Conv2d(in_channels, out_channels, 1)
        self.smooth = nn.Conv2d(out_channels, out_channels, 3, padding=1, groups=out_channels, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        return {}
"""


def without_gates(**changes: str) -> str:
    """A decoder without gates, but for one slip."""
    into = {"d3": "self.eucb3(d4) + x3", "d2": "self.eucb2(d3) + x2", "d1": "self.eucb1(d2) + x1"} | changes
    lines = "\n".join(f"{name} = self.mscam{name[1]}({what})" for name, what in into.items())
    body = f"x1, x2, x3, x4 = features\nd4 = self.mscam4(x4)\n{lines}\nreturn [d4, d3, d2, d1]"
    return method("EMCAD", body, arguments="features")


LEAN = "self.judge_decoder[0] = nn.Conv2d(channels, half, 3, padding=1, groups=half, bias={})\n"
LEAN += "self.judge_skip[0] = nn.Conv2d(channels, half, 3, padding=1, groups=half, bias={})\n"
LEAN += "self.agree[0] = nn.Conv2d(half, 1, 1, bias={})"
FOLD = """def fold_end(mscb):
    convolution, norm = mscb.narrow
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    folded = nn.Conv2d(convolution.in_channels, convolution.out_channels, 1)
    order = mscb.shuffle(torch.arange(convolution.in_channels).view(1, -1, 1, 1)).flatten()
    {}
    return folded
"""
SHUFFLE = """def as_pixel_shuffle(transposed):
    C, C_out = transposed.in_channels, transposed.out_channels
    pointwise = nn.Conv2d(C, 4 * C_out, 1)
    pointwise.weight.data = transposed.weight.data.permute({}).reshape(4 * C_out, C, 1, 1)
    pointwise.bias.data = {}
    return nn.Sequential(pointwise, nn.PixelShuffle(2))
"""
PER_CHANNEL = "self.agree = nn.Sequential(nn.Conv2d(half, channels, 1),"
UNITS = "def units_kept(branches, wide):\n    return {}"
WORST = """def worst_slice(truth, found):
    with_tumour = [k for k in range(truth.shape[2]) if truth[:, :, k].any()]
    return {}
"""
EXTENT = """def extent(bits, region="whole"):
    slices = np.flatnonzero(region_mask(bits, region).any(axis={}))
    return {}
"""
BEST = """def best_threshold(z, target, thresholds):
    scores = [dice(z {} t, target) for t in thresholds]
    return {}
"""
ROBUST = """def robust_scores(image):
    inside = image != 0
    low, middle, high = np.percentile({}, (25, 50, 75))
    scores = np.zeros_like(image)
    scores[inside] = {}
    return scores
"""
DROP = """def drop_modality(x, generator):
    out = {}
    out[torch.arange(len(x)), {}] = 0
    return out
"""
SUBSETS = """def subset_sums(maps):
    rows = [row for row in itertools.product([0.0, 1.0], repeat=4) if {}]
    return {}
"""
SPREAD = "def spread_of_means(batch_size, repeats, generator):\n    return {}"
ACCUMULATED = """def accumulated_gradient(model, batches, loss):
    {}
    for x, y in batches:
        {}
    return {}
"""
VECTOR = "torch.cat([p.grad.flatten() for p in model.parameters()])"
SMOOTHED = """def smoothed(values, keep):
    averages, average = [], {}
    for value in values:
        average = {}
        averages.append(average)
    return averages
"""
AT_UPDATES = """def dice_at_updates(history, updates):
    rows = history[history["updates"] {} updates]
    return {}
"""
MAJORITY = "def majority(masks):\n    return {}"
AVERAGE = """def average_weights(states):
    return {{name: {} for name, tensor in states[0].items()}}
"""

WRONG: dict[str, list[str]] = {
    "00-1": [
        "answer_1 = 30 / (40 + 60)",  # the overlap counted once
        "answer_1 = 30 / 60",  # precision
        "answer_1 = 30 / 40",  # sensitivity
        "answer_1 = 30 / (40 + 60 - 30)",  # intersection over union
        "answer_1 = 60",  # per cent
        "answer_1 = 2 * 30",
        "answer_1 = '0.6'",
    ],
    "00-2": [
        "def my_volume(mask, spacing):\n    return mask.sum() * np.prod(spacing)",  # mm3
        "def my_volume(mask, spacing):\n    return mask.sum() / 1000",  # voxels of 1 mm
        "def my_volume(mask, spacing):\n    return mask.size * np.prod(spacing) / 1000",  # all voxels
        "def my_volume(mask, spacing):\n    return mask.sum() * sum(spacing) / 1000",
        "def my_volume(mask, spacing):\n    return mask.sum() * spacing[0] ** 3 / 1000",
        "def my_volume(mask, spacing):\n    return mask * np.prod(spacing) / 1000",  # not added up
        "def my_volume(mask, spacing):\n    return f'{volume_cm3(mask, spacing)} cm3'",
    ],
    "00-3": [
        "def worst_slice(truth, found):\n    return min(range(5), key=lambda k: dice(found[:, :, k], truth[:, :, k]))",
        WORST.format("min(with_tumour, key=lambda k: dice(found[:, :, k], truth[:, :, k]))"),  # an error without tumour
        WORST.format("max(with_tumour, key=lambda k: dice(found[:, :, k], truth[:, :, k]), default=-1)"),
        WORST.format("min((dice(found[:, :, k], truth[:, :, k]) for k in with_tumour), default=-1)"),  # the score
        WORST.format("min(with_tumour, key=lambda k: (found & truth)[:, :, k].sum(), default=-1)"),  # sensitivity
        WORST.format("max(with_tumour, key=lambda k: (found ^ truth)[:, :, k].sum(), default=-1)"),  # wrong voxels
        WORST.format(
            "np.argmin([dice(found[:, :, k], truth[:, :, k]) for k in with_tumour])"
        ),  # counted from the first
        WORST.format("min(with_tumour, key=lambda k: dice(found[:, :, k], truth[:, :, k]), default=None)"),
        WORST.format("min(with_tumour, key=lambda k: dice(found[:, :, k], truth[:, :, k]), default=0)"),
        "def worst_slice(truth, found):\n    return min(range(8), key=lambda k: dice(found[k], truth[k]))",  # sagittal
    ],
    "01-1": ["core_voxels = 60", "core_voxels = 90", "core_voxels = 20", "core_voxels = 30", "core_voxels = 40"],
    "01-2": [
        "def diameter_mm(cm3):\n    return 10 * np.cbrt(3 * cm3 / (4 * np.pi))",  # the radius
        "def diameter_mm(cm3):\n    return 2 * np.cbrt(3 * cm3 / (4 * np.pi))",  # in cm
        "def diameter_mm(cm3):\n    return 20 * np.sqrt(3 * cm3 / (4 * np.pi))",  # right for a radius of 1 cm
        "def diameter_mm(cm3):\n    return 20 * (3 * cm3 / (4 * np.pi)) ** 1 / 3",
        "def diameter_mm(cm3):\n    return 2 * np.cbrt(3 * cm3 * 100 / (4 * np.pi))",  # 100 mm3 in a cm3
        "def diameter_mm(cm3):\n    return [20 * np.cbrt(3 * cm3 / (4 * np.pi))]",
    ],
    "01-3": [
        EXTENT.format("(1, 2)", "(slices[0], slices[-1])"),  # an error where there is none
        EXTENT.format("(1, 2)", "(slices[0], slices[-1]) if len(slices) else None"),
        EXTENT.format("(1, 2)", "(slices[0], slices[-1] + 1) if len(slices) else (-1, -1)"),  # as slice() counts
        EXTENT.format("(1, 2)", "slices[-1] - slices[0] + 1 if len(slices) else 0"),  # how many
        EXTENT.format("(1, 2)", "slices if len(slices) else (-1, -1)"),  # all of them
        EXTENT.format("(0, 1)", "(slices[0], slices[-1]) if len(slices) else (-1, -1)"),  # along the wrong axis
        EXTENT.replace("bits, region)", "bits, 'whole')").format(
            "(1, 2)", "(slices[0], slices[-1]) if region != 'enhancing' else (-1, -1)"
        ),
        EXTENT.format("(1, 2)", "f'{slices[0]} to {slices[-1]}'"),
    ],
    "01-4": [
        BEST.format(">=", "max(zip(thresholds, scores), key=lambda pair: pair[1])"),
        BEST.format("<", "max(zip(thresholds, scores), key=lambda pair: pair[1])"),
        BEST.format(">", "max(zip(scores, thresholds))"),  # the score first
        BEST.format(">", "(int(np.argmax(scores)), max(scores))"),  # the place in the list
        BEST.format(">", "thresholds[int(np.argmax(scores))]"),  # without its score
        BEST.format(">", "list(zip(thresholds, scores))"),
        BEST.format(">", "(thresholds, scores)"),
        BEST.format(">", "max(zip(thresholds, scores))"),  # the largest threshold
        "def best_threshold(z, target, thresholds):\n    return max(\n"
        "        ((t, np.mean((z > t) == target)) for t in thresholds), key=lambda pair: pair[1])",  # accuracy
    ],
    "02-1": [
        "largest_error = 10 / 14",
        "largest_error = 10 / 15 / 2",
        "largest_error = 10 / 16 / 2",
        "largest_error = 5",
    ],
    "02-2": [
        "def leaking(train, test):\n    return sorted(set(train) & set(test))",  # pairs
        "def leaking(train, test):\n    return sorted({name for name, _ in set(train) & set(test)})",
        "def leaking(train, test):\n    return {name for name, _ in train} & {name for name, _ in test}",
        "def leaking(train, test):\n    return list(dict.fromkeys(n for n, _ in train if n in {m for m, _ in test}))",
        "def leaking(train, test):\n    return sorted(n for n, _ in train if n in {m for m, _ in test})",  # a twice
        "def leaking(train, test):\n    return sorted({name for name, _ in train} | {name for name, _ in test})",
        "def leaking(train, test):\n    return len({name for name, _ in train} & {name for name, _ in test})",
        "def leaking(train, test):\n    return bool({name for name, _ in train} & {name for name, _ in test})",
        "def leaking(train, test):\n"
        "    return ''.join(sorted({name for name, _ in train} & {name for name, _ in test}))",
        "def leaking(train, test):\n"
        "    return sorted({name for name, _ in train} & {name for name, _ in test}) or None",
    ],
    "02-3": [
        "def robust_scores(image):\n    inside = image[image != 0]\n"
        "    return np.where(image != 0, (image - inside.mean()) / inside.std(), 0)",  # the old scores
        ROBUST.format("image", "(image[inside] - middle) / max((high - low) / 1.349, 1)"),  # with the air
        ROBUST.format("image[inside]", "(image[inside] - middle) / (high - low)"),  # without 1.349
        ROBUST.format("image[inside]", "(image[inside] - middle) / (high - low) / 1.349"),
        ROBUST.format("image[inside]", "image[inside] / ((high - low) / 1.349)"),
        ROBUST.format("image[inside]", "(image[inside] - image[inside].mean()) / ((high - low) / 1.349)"),
        "def robust_scores(image):\n    low, middle, high = np.percentile(image[image != 0], (25, 50, 75))\n"
        "    return (image - middle) / ((high - low) / 1.349)",  # zeros don't stay
        "def robust_scores(image):\n    inside = image[image != 0]\n"
        "    return (inside - np.median(inside)) / 74.1",  # another shape
    ],
    "02-4": [
        DROP.format("x", "torch.randint(x.shape[1], (len(x),), generator=generator)"),  # x itself
        DROP.format("x.clone()", "torch.randint(x.shape[1], (1,), generator=generator)"),  # one for all
        DROP.format("x.clone()", "torch.randint(x.shape[1], (len(x),))"),  # can't be repeated
        DROP.format("x.clone()", "torch.randint(3, (len(x),), generator=generator)"),  # never the fourth
        DROP.format("x.clone()", "torch.arange(len(x)) % x.shape[1]"),  # in turn
        "def drop_modality(x, generator):\n"
        "    return x * (torch.rand(*x.shape[:2], 1, 1, generator=generator) > 0.25)",  # none, or two
        "def drop_modality(x, generator):\n    return x[:, torch.randperm(4, generator=generator)[1:]]",  # fewer
        "def drop_modality(x, generator):\n    return x.numpy()",
    ],
    "03-1": ["width = 7", "width = 14", "width = 49"],
    "03-2": [
        "extra_parameters, kernels_of_the_paper = 24_576, (1, 3, 5)",  # forgot the expansion
        "extra_parameters, kernels_of_the_paper = 49_152, (3, 5, 7)",
        "extra_parameters, kernels_of_the_paper = 49_152, 135",
    ],
    "03-3": [
        FOLD.format("folded.weight.copy_(convolution.weight * scale[:, None, None, None])"),  # neither bias nor columns
        FOLD.format(
            "folded.weight[:, order] = convolution.weight; folded.bias.copy_(norm.bias - scale * norm.running_mean)"
        ),
        FOLD.format(
            "folded.weight.copy_(convolution.weight[:, order] * scale[:, None, None, None]); "
            "folded.bias.copy_(norm.bias - scale * norm.running_mean)"  # the inverse shuffle
        ),
        "def fold_end(mscb):\n    return nn.Sequential(mscb.shuffle, *mscb.narrow)",  # folds nothing
        "def fold_end(mscb):\n    return lambda x: mscb.narrow(mscb.shuffle(x))",
    ],
    "03-4": [
        method("MSDC", "return sum(branch(x) for branch in self.branches)"),
        method("MSDC", "for branch in self.branches:\n    x = branch(x)\nreturn x"),
        method(
            "MSDC", "total = x\nfor branch in self.branches:\n    x = branch(x)\n    total = total + x\nreturn total"
        ),
    ],
    "04-1": ["cab_parameters = 2 * 8192", "cab_parameters = 512 * 32", "cab_parameters = 2 * 512 * 16"],
    "04-2": [
        "def clarity(k, w):\n    return min(k, w) ** 2 / k ** 2\n\nsmallest_width = 5",
        "def clarity(k, w):\n    return min(k, w) ** 2 / k\n\nsmallest_width = 4",
        "def clarity(k, w):\n    return min(k, w) ** 2 / k\n\nsmallest_width = 7",
    ],
    "04-3": [
        method("MSCAM", "y = self.cab(x) * x\nreturn self.mscb(self.sab(y) * y)"),
        method("MSCAM", "return self.mscb(self.cab(x) * self.sab(x) * x)"),
        method("MSCAM", "z = self.sab(x) * x\nreturn self.mscb(self.cab(z) * x)"),
    ],
    "04-4": [
        "def without_aliases(state):\n    return dict(state)",
        "def without_aliases(state):\n    return {k: v for k, v in state.items() if k.startswith('0')}",
        "def without_aliases(state):\n    last = {v.data_ptr(): k for k, v in state.items()}\n"
        "    return {k: state[k] for k in last.values()}",  # the last name of each
        "def without_aliases(state):\n    return {k: v for k, v in state.items() if not k.startswith('1')}",
    ],
    "05-1": ["smallest = 18", "smallest = 22", "smallest = 19"],
    "05-2": [
        "def prop_open(gate):\n    nn.init.constant_(gate.agree[1].bias, 100.0)\n    return gate",
        "def prop_open(gate):\n    nn.init.constant_(gate.agree[0].bias, 100.0)\n    return gate",
        "def prop_open(gate):\n    nn.init.zeros_(gate.agree[1].weight)\n    return gate",
        "def prop_open(gate):\n    nn.init.constant_(gate.agree[1].bias, 1e8)\n    return gate",
    ],
    "05-3": [
        gate("for part in (self.judge_decoder, self.judge_skip, self.agree):\n    part[1].bias = None"),
        gate(LEAN.format("False", "False", "True")),
        gate(LEAN.format("True", "True", "False")),
    ],
    "05-4": [
        gate("self.agree = nn.Sequential(nn.Conv2d(half, channels, 3, padding=1), nn.BatchNorm2d(channels))"),
        gate("self.agree = nn.Sequential(nn.Conv2d(half, channels, 1, bias=False), nn.BatchNorm2d(channels))"),
        gate("self.agree = nn.Sequential(nn.Conv2d(half, half, 1), nn.BatchNorm2d(half))"),
        gate(f"{PER_CHANNEL} nn.BatchNorm2d(channels), nn.Sigmoid())"),  # the second one
        gate(f"{PER_CHANNEL} nn.ReLU(), nn.BatchNorm2d(channels))"),
        gate(f"{PER_CHANNEL} nn.GroupNorm(1, channels))"),
    ],
    "06-1": ["even_sizes = [2, 4, 6]", "even_sizes = [3]", "even_sizes = [3, 4, 5, 6]", "even_sizes = 3"],
    "06-2": [
        "def bilinear_kernel():\n    return torch.full((3, 3), 1 / 9)",
        "def bilinear_kernel():\n    return torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])) / 4",
        "def bilinear_kernel():\n    return torch.tensor([0.25, 0.5, 0.25])",
        "def bilinear_kernel():\n    return [[0.0625, 0.125, 0.0625], [0.125, 0.25, 0.125], [0.0625, 0.125, 0.0625]]",
    ],
    "06-3": [
        EARLY.format("F.relu(self.smooth(F.interpolate(self.norm(self.mix(x)), scale_factor=2)))"),
        EARLY.format("F.relu(self.norm(self.smooth(F.interpolate(self.mix(x), scale_factor=2, mode='bilinear'))))"),
        EARLY.format("F.relu(self.norm(self.smooth(self.mix(F.interpolate(x, scale_factor=2)))))"),
        EARLY.format("F.relu(self.smooth(F.interpolate(self.mix(x), scale_factor=2)))"),
    ],
    "06-4": [
        SHUFFLE.format("1, 2, 3, 0", "transposed.bias.data.repeat(4)"),
        SHUFFLE.format("1, 3, 2, 0", "transposed.bias.data.repeat_interleave(4)"),
        SHUFFLE.format("2, 3, 1, 0", "transposed.bias.data.repeat_interleave(4)"),
    ],
    "07-1": ["expansion_4 = 2 * 506_507", "expansion_4 = 506_507", "expansion_4 = '935563'"],
    "07-2": [
        UNITS.format("24"),
        UNITS.format("3 + 3 * 2 + branches * 2 * 2 + 2 + 1"),  # forgot the expansion
        UNITS.format("3 + 2 * wide + branches * 3 * wide + wide + 1"),  # the branches' common input for each of them
        UNITS.format("3 * wide + branches * 2 * wide + wide + 1"),  # without the inputs of CAB, SAB and MSCB
        UNITS.format("3 + 3 * wide + branches * wide + wide + 1"),  # one map in each branch
        UNITS.format("3 + 3 * wide + branches * 2 * wide + wide + wide"),  # what BN gets at the end isn't wide
    ],
    "07-3": [
        without_gates(d3="self.eucb3(d4) + self.lgag3(self.eucb3(d4), x3)"),
        without_gates(d3="self.eucb3(d4)", d2="self.eucb2(d3)"),  # only the last skip connection
        without_gates(d3="x3", d2="x2", d1="x1"),  # nothing comes up from below
    ],
    "07-4": [
        "def with_encoder(name):\n    return PVTEMCAD(timm.create_model(name, features_only=True, pretrained=False))",
        "def with_encoder(name):\n    return PVTEMCAD(\n"
        "        timm.create_model(name, features_only=True, pretrained=False, out_indices=(0, 1, 2, 3)))",
        "def with_encoder(name):\n"
        "    return PVTEMCAD(timm.create_model('pvt_v2_b0', features_only=True, pretrained=False))",
        "def with_encoder(name):\n    return PVTEMCAD(\n"
        "        timm.create_model(name, features_only=True, pretrained=False, out_indices=(1, 2, 3, 4)))",
        "def with_encoder(name):\n    return timm.create_model(name, features_only=True, pretrained=False)",
    ],
    "08-1": [
        "false_alarm = 1",
        "false_alarm = 0.1",
        "false_alarm = 0",
        "false_alarm = 1 - 2 / 10",
        "false_alarm = '0.9'",
    ],
    "08-2": [
        "def four_losses(maps, target):\n    return sum(segmentation_loss(p, target) for p in maps) / 4",
        "def four_losses(maps, target):\n    return segmentation_loss(sum(maps), target)",
        "def four_losses(maps, target):\n    return mutation_loss(maps, target)",
        "def four_losses(maps, target):\n    return [segmentation_loss(p, target) for p in maps]",
        "def four_losses(maps, target):\n    return torch.stack([segmentation_loss(p, target) for p in maps])",
        "def four_losses(maps, target):\n    return sum(segmentation_loss(p, target).item() for p in maps)",
        "def four_losses(maps, target):\n    return sum(dice_loss(p, target) for p in maps)",  # without cross-entropy
        "def four_losses(maps, target):\n    return segmentation_loss(maps[-1], target)",
        "def four_losses(maps, target):\n    return 4 * segmentation_loss(torch.stack(maps).mean(dim=0), target)",
    ],
    "08-3": [
        SUBSETS.format("True", "torch.einsum('sm,mbchw->sbchw', torch.tensor(rows), torch.stack(maps))"),
        SUBSETS.format("not all(row)", "torch.einsum('sm,mbchw->sbchw', torch.tensor(rows), torch.stack(maps))"),
        SUBSETS.format("any(row)", "torch.einsum('sm,mbchw->bschw', torch.tensor(rows), torch.stack(maps))"),
        SUBSETS.format("any(row)", "torch.tensor(rows) @ torch.stack(maps).flatten(1)"),  # flat
        SUBSETS.format(
            "any(row)", "torch.stack([sum(w * p for w, p in zip(row, maps)) / sum(row) for row in rows])"
        ),  # means
        SUBSETS.format("any(row)", "[sum(w * p for w, p in zip(row, maps)) for row in rows]"),  # a list
        "def subset_sums(maps):\n    return torch.stack(\n"
        "        [sum(s) for count in (1, 2, 3) for s in itertools.combinations(maps, count)] + [maps[0]])",
    ],
    "09-1": ["epochs_needed = 41", "epochs_needed = 10 * 25 / 6", "epochs_needed = 25", "epochs_needed = '42'"],
    "09-2": [
        SPREAD.format("generator.normal(size=(repeats, batch_size)).mean(axis=0).std()"),  # over the wrong axis
        SPREAD.format("generator.normal(size=(repeats, batch_size)).mean(axis=1).var()"),
        SPREAD.format("generator.normal(size=(repeats, batch_size)).std()"),  # of all numbers
        SPREAD.format("generator.normal(size=(repeats, batch_size)).std(axis=1).mean()"),  # within a batch
        SPREAD.format("generator.normal(size=(repeats, batch_size)).mean(axis=1)"),  # the means themselves
        SPREAD.format("1 / math.sqrt(batch_size)"),  # the formula
        SPREAD.format("np.random.normal(size=(repeats, batch_size)).mean(axis=1).std()"),  # another generator
        SPREAD.format("generator.uniform(size=(repeats, batch_size)).mean(axis=1).std()"),
    ],
    "09-3": [
        ACCUMULATED.format("model.zero_grad()", "loss(model(x), y).backward()", VECTOR),  # the sum
        ACCUMULATED.format("pass", "model.zero_grad(); (loss(model(x), y) / 3).backward()", VECTOR),  # the last batch
        ACCUMULATED.format("pass", "(loss(model(x), y) / len(batches)).backward()", VECTOR),  # an old gradient
        ACCUMULATED.format(
            "model.zero_grad()",
            "(loss(model(x), y) / len(batches)).backward()",
            "[p.grad.flatten() for p in model.parameters()]",
        ),
        ACCUMULATED.format(
            "model.zero_grad()",
            "(loss(model(x), y) / len(batches)).backward()",
            "torch.cat([p.grad.flatten() for p in list(model.parameters())[:1]])",  # without the biases
        ),
        ACCUMULATED.format(
            "model.zero_grad(); total = 0",
            "total = total + loss(model(x), y) / len(batches)",
            f"total.backward() or {VECTOR}",  # all batches' features kept until the end
        ),
        ACCUMULATED.format(
            "model.zero_grad()",
            "pass",
            "loss(model(torch.cat([x for x, _ in batches])), torch.cat([y for _, y in batches])).backward() or "
            f"{VECTOR}",  # all batches at once
        ),
    ],
    "10-1": ["zigzag = 2 / 3", "zigzag = 5 / 2", "zigzag = 1", "zigzag = 2", "zigzag = [2, 5]", "zigzag = '2 / 5'"],
    "10-2": [
        SMOOTHED.format("0", "keep * average + (1 - keep) * value"),
        SMOOTHED.format("values[0]", "(1 - keep) * average + keep * value"),
        SMOOTHED.format("values[0]", "average + (1 - keep) * value"),
        "def smoothed(values, keep):\n    return pd.Series(values).ewm(alpha=1 - keep).mean()",  # with adjusted weights
        "def smoothed(values, keep):\n    return pd.Series(values).rolling(2).mean()",
        "def smoothed(values, keep):\n"
        "    return [values[0]] + [keep * a + (1 - keep) * b for a, b in zip(values, values[1:])]",  # of old values
        "def smoothed(values, keep):\n    return [keep * a + (1 - keep) * b for a, b in zip(values, values[1:])]",
        "def smoothed(values, keep):\n    return sum(values) / len(values)",
    ],
    "10-3": [
        AT_UPDATES.format("<=", "rows['dice_patient'].iloc[-1]"),  # an error where there is none
        AT_UPDATES.format("<=", "rows['dice_patient'].iloc[-1] if len(rows) else None"),
        AT_UPDATES.format("<=", "rows['dice_patient'].iloc[-1] if len(rows) else 0"),
        AT_UPDATES.format("<=", "rows['dice_patient'].max()"),  # the best, not the last
        AT_UPDATES.format("<", "rows['dice_patient'].iloc[-1] if len(rows) else float('nan')"),
        AT_UPDATES.format("<=", "rows['dice_patient'].iloc[0] if len(rows) else float('nan')"),
        AT_UPDATES.format("<=", "rows['dice_patient']"),
        AT_UPDATES.format("<=", "rows.iloc[-1] if len(rows) else float('nan')"),
        AT_UPDATES.format("<=", "rows['updates'].iloc[-1] if len(rows) else float('nan')"),
        "def dice_at_updates(history, updates):\n"
        "    return history['dice_patient'][(history['updates'] - updates).abs().idxmin()]",  # the nearest
        "def dice_at_updates(history, updates):\n"
        "    return np.interp(updates, history['updates'], history['dice_patient'])",
    ],
    "11-1": [
        "with_zero, with_one = 0.8, 0.8",  # the empty slices left out
        "with_zero, with_one = 0.92, 0.32",
        "with_zero, with_one = 0.32, 0.8",
    ],
    "11-2": [
        "def iou(p, t):\n    return library.dice(p, t)",
        "def iou(p, t):\n    return (p & t).sum() / max(p.sum() + t.sum(), 1)",  # the shared pixels counted twice
        "def iou(p, t):\n    return (p & t).sum() / max((p | t).sum(), 1)",  # 0 for two empty masks
    ],
    "11-3": [
        "def flatterer(slice_):\n    return slice_ > 0",
        "def flatterer(slice_):\n    return np.zeros(slice_.shape, dtype=bool)",
        "def flatterer(slice_):\n    return slice_",
    ],
    "11-4": [
        "def to_report(validation, test):\n    return test.max()",
        "def to_report(validation, test):\n    return validation.max()",
        "def to_report(validation, test):\n    return validation[test.argmax()]",
        "def to_report(validation, test):\n    return test[-1]",
        "def to_report(validation, test):\n    return test.mean()",
    ],
    "12-1": ["voxels = 960", "voxels = 9600", "voxels = 96", "voxels = '96,000'"],
    "12-2": [
        "def sensitivity(found, truth):\n    return (found & truth).sum() / found.sum()",  # precision
        "def sensitivity(found, truth):\n    return found.sum() / truth.sum() if truth.any() else np.nan",
        "def sensitivity(found, truth):\n    return min(found.sum() / truth.sum(), 1) if truth.any() else np.nan",
        "def sensitivity(found, truth):\n    return dice(found, truth)",
        "def sensitivity(found, truth):\n    return np.mean(found == truth)",
        "def sensitivity(found, truth):\n    return (found & truth).sum() / truth.sum() if truth.any() else 0.0",
        "def sensitivity(found, truth):\n    return (found & truth).sum() / truth.sum() if truth.any() else 1.0",
        "def sensitivity(found, truth):\n    return (found & truth).sum() / truth.sum() if truth.any() else None",
        "def sensitivity(found, truth):\n    return int((found & truth).sum()) / int(truth.sum())",  # an error
        "def sensitivity(found, truth):\n    return (found & truth) / truth.sum()",  # not added up
    ],
    "12-3": [
        "def worst_distance(found, truth):\n    return ndimage.distance_transform_edt(truth)[found].max()",
        "def worst_distance(found, truth):\n    return ndimage.distance_transform_edt(~truth).max()",
        "def worst_distance(found, truth):\n    return ndimage.distance_transform_edt(~truth)[found].mean()",
        "def worst_distance(found, truth):\n    return ndimage.distance_transform_edt(~truth)[found]",
        "def worst_distance(found, truth):\n    return ndimage.distance_transform_edt(~found)[truth].max()",
        "def worst_distance(found, truth):\n    return ndimage.distance_transform_edt(~truth)[found & ~truth].max()",
        "def worst_distance(found, truth):\n    return max(ndimage.distance_transform_edt(~truth)[found].max(),\n"
        "               ndimage.distance_transform_edt(~found)[truth].max())",  # in both directions
    ],
    "13-1": ["patients_needed = 5", "patients_needed = 7", "patients_needed = 20", "patients_needed = 5.3"],
    "13-2": [
        MAJORITY.format("np.sum(masks, axis=0) >= len(masks) / 2"),
        MAJORITY.format("np.sum(masks, axis=0) > 1"),
        MAJORITY.format("np.all(masks, axis=0)"),
        MAJORITY.format("np.any(masks, axis=0)"),
        MAJORITY.format("np.mean(masks, axis=0)"),
    ],
    "13-3": [
        AVERAGE.format("torch.stack([state[name] for state in states]).float().mean(dim=0)"),  # counters as well
        AVERAGE.format("(states[0][name] + states[-1][name]) / 2"),
        AVERAGE.format("sum(state[name] for state in states)"),
        AVERAGE.format("sum((state[name] for state in states), 0 * tensor) // len(states)"),
        AVERAGE.format("tensor"),
    ],
}
