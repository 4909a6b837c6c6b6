import copy
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from stages.errors import ConfigError
from stages.models.aggregators.factory import AggregatorSettings, GeM, NetVLAD, Salad, make_aggregator
from stages.models.aggregators.salad import transport

CHANNELS = 6
SPREAD = 30
"""Factor that spreads random scores as in a trained network, so that Sinkhorn needs several rounds."""
CHOICES = {
    "gem": AggregatorSettings("gem", 4, 0, 0),
    "netvlad": AggregatorSettings("netvlad", 4, 0, 0),
    "netvlad_reduced": AggregatorSettings("netvlad", 4, 3, 0),
    "salad": AggregatorSettings("salad", 4, 3, 5),
    "salad_without_global": AggregatorSettings("salad", 4, 3, 0),
}
LENGTHS = {"gem": 6, "netvlad": 24, "netvlad_reduced": 12, "salad": 17, "salad_without_global": 12}


def make(name, prefix=1, seed=0):
    torch.manual_seed(seed)
    return make_aggregator(CHOICES[name], CHANNELS, prefix)


def tokens(images=3, count=9, prefix=1, dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(images, prefix + count, CHANNELS, generator=generator, dtype=dtype)
    return drawn[:, :prefix], drawn[:, prefix:]


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("name", CHOICES)
def test_features_are_float32_of_the_stated_length(name, prefix):
    module = make(name, prefix)
    prefix_tokens, patches = tokens(prefix=prefix)
    feature = module(prefix_tokens.half(), patches.half())
    assert feature.shape == (3, LENGTHS[name])
    assert module.length == LENGTHS[name]
    assert feature.dtype == torch.float32
    if name != "gem":
        torch.testing.assert_close(feature.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("name", CHOICES)
def test_the_order_of_local_features_does_not_matter(name):
    module = make(name)
    prefix, patches = tokens()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(module(prefix, patches[:, order]), module(prefix, patches))
    assert not torch.allclose(module(prefix, patches + 0.5), module(prefix, patches), atol=1e-3)


@pytest.mark.parametrize("name", CHOICES)
def test_an_image_has_the_same_feature_in_any_batch(name):
    module = make(name)
    prefix, patches = tokens()
    alone = torch.cat([module(prefix[i : i + 1], patches[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(module(prefix, patches), alone)


@pytest.mark.parametrize("name", CHOICES)
def test_autocast_leaves_the_computation_in_float32(name):
    module = make(name)
    plain = module(*tokens())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(*tokens()), plain)


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("name", CHOICES)
def test_gradients_are_those_of_finite_differences(name, prefix):
    module = make(name, prefix).double()
    names = [name for name, _ in module.named_parameters()]
    if isinstance(module, Salad):  # the hidden layers are many weights of the same kind
        names = ["dustbin", "score.2.bias", "reduction.2.bias"]
    prefix_tokens, patches = tokens(images=2, count=5, prefix=prefix, dtype=torch.float64)
    patches = patches.abs() + 0.1 if name == "gem" else patches
    weights = [module.get_parameter(name).detach().clone().requires_grad_() for name in names]

    def forward(prefix_tokens, patches, *weights):
        parameters = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(module, parameters, (prefix_tokens, patches))

    inputs = (prefix_tokens.requires_grad_(), patches.requires_grad_(), *weights)
    assert torch.autograd.gradcheck(forward, inputs)


@pytest.mark.parametrize("name", CHOICES)
def test_every_weight_and_input_has_a_gradient(name):
    module = make(name)
    if isinstance(module, Salad):
        module.score[2].weight.data *= SPREAD
    prefix, patches = (part.requires_grad_() for part in tokens())
    feature = module(prefix, patches)
    (feature * torch.arange(1.0, 1.0 + module.length).sin()).sum().backward()
    parts = dict(module.named_parameters()) | {"patches": patches}
    if name == "salad":
        parts["prefix"] = prefix
    for part, tensor in parts.items():
        assert tensor.grad.abs().max() > 1e-4, part


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(list(CHOICES)),
    count=st.integers(1, 20),
    size=st.sampled_from([0.0, 1e-6, 1.0, 60.0, 1e3, 6e4]),
    constant=st.booleans(),
    seed=st.integers(0, 99),
)
def test_features_and_gradients_are_finite_for_any_float16(name, count, size, constant, seed):
    module = make(name, seed=seed)
    prefix, patches = tokens(count=count, seed=seed)
    if constant:
        patches = torch.ones_like(patches)
    prefix, patches = (
        (part.clamp(-1, 1) * size).half().float().requires_grad_() for part in (prefix, patches)
    )
    feature = module(prefix, patches)
    feature.sum().backward()
    assert feature.isfinite().all()
    for tensor in (patches, *module.parameters()):
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("name", CHOICES)
def test_weights_survive_a_state_dict(name):
    module = make(name)
    module.begin(tokens(count=30)[1].flatten(0, 1), seed=0)
    copied = make(name, seed=7)
    copied.load_state_dict(module.state_dict())
    assert torch.equal(copied(*tokens()), module(*tokens()))


@pytest.mark.parametrize("name", CHOICES)
def test_begin_depends_on_the_sample_and_the_seed_alone(name):
    sample = tokens(count=100)[1].flatten(0, 1)
    first, again, other = make(name, seed=1), make(name, seed=2), make(name, seed=2)
    before = copy.deepcopy(first.state_dict())
    for weight in again.parameters():
        weight.data += 1
    for module, seed in ((first, 5), (again, 5), (other, 6)):
        module.begin(sample, seed)
        torch.randn(3)
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key
        assert name == "gem" or key == "dustbin" or not torch.equal(tensor, before[key]), key
    same = torch.equal(first(*tokens()), other(*tokens()))
    assert same == (name == "gem")


# GeM


def test_gem_is_the_formula():
    module = GeM(CHANNELS)
    _, patches = tokens()
    for power in (1.0, 3.0, 4.5):
        module.power.data.fill_(power)
        expected = patches.double().clamp(min=1e-6).pow(power).mean(dim=1).pow(1 / power)
        torch.testing.assert_close(module(*tokens()), expected.float())


def test_gem_is_between_the_mean_and_the_maximum():
    module = GeM(CHANNELS)
    prefix, patches = tokens()
    patches = patches.abs()
    module.power.data.fill_(1.0)
    torch.testing.assert_close(module(prefix, patches), patches.mean(dim=1))
    module.power.data.fill_(2000.0)
    torch.testing.assert_close(module(prefix, patches), patches.amax(dim=1), rtol=2e-3, atol=0)


# NetVLAD


def naive_netvlad(module, patches):
    """The paper's sums, one local feature, cluster and channel at a time, in float64."""
    wide = {name: tensor.detach().double().numpy() for name, tensor in module.state_dict().items()}
    features = []
    for image in patches.double().numpy():
        clusters, width = wide["centres"].shape
        residuals = np.zeros((clusters, width))
        for x in image:
            if "reduction.weight" in wide:
                x = wide["reduction.weight"] @ x + wide["reduction.bias"]
            x = x / math.sqrt(sum(x * x))
            logits = [wide["assignment.weight"][k] @ x + wide["assignment.bias"][k] for k in range(clusters)]
            total = sum(math.exp(logit) for logit in logits)
            for k in range(clusters):
                for c in range(width):
                    residuals[k, c] += math.exp(logits[k]) / total * (x[c] - wide["centres"][k, c])
        rows = [row / math.sqrt(sum(row * row)) for row in residuals]
        joined = np.concatenate(rows)
        features.append(joined / math.sqrt(sum(joined * joined)))
    return torch.from_numpy(np.stack(features)).float()


@pytest.mark.parametrize("name", ["netvlad", "netvlad_reduced"])
@pytest.mark.parametrize("begun", [False, True])
def test_netvlad_is_the_papers_triple_sum(name, begun):
    module = make(name)
    prefix, patches = tokens()
    if begun:
        module.begin(patches.flatten(0, 1), seed=0)
    torch.testing.assert_close(module(prefix, patches), naive_netvlad(module, patches), rtol=1e-4, atol=1e-5)


def blobs(count=200):
    generator = torch.Generator().manual_seed(4)
    centres = torch.tensor([[5.0, 0, 0, 0, 0, 0], [0, 5.0, 0, 0, 0, 0]])
    labels = torch.arange(count) % 2
    return centres[labels] + 0.3 * torch.randn(count, CHANNELS, generator=generator), labels


@pytest.mark.parametrize("reduced", [0, 3])
def test_two_blobs_are_assigned_to_two_clusters(reduced):
    torch.manual_seed(0)
    module = NetVLAD(CHANNELS, 2, reduced)
    sample, labels = blobs()
    module.begin(sample, seed=0)
    weights = module.assignment(module._reduced(sample)).softmax(dim=1)
    found = weights.argmax(dim=1)
    assert len({(int(a), int(b)) for a, b in zip(labels, found, strict=True)}) == 2
    assert found.unique().tolist() == [0, 1]
    for k in range(2):
        members = module._reduced(sample[found == k])
        torch.testing.assert_close(module.centres[k], members.mean(dim=0), atol=0.02, rtol=0)


def test_the_nearest_cluster_starts_100_times_likelier():
    module = make("netvlad")
    sample = tokens(count=200)[1].flatten(0, 1)
    module.begin(sample, seed=0)
    local = sample / sample.norm(dim=1, keepdim=True)
    two = module.assignment(local).log_softmax(dim=1).topk(2, dim=1)
    assert (two.values[:, 0] - two.values[:, 1]).mean().exp().item() == pytest.approx(100, rel=1e-3)
    nearest = torch.cdist(local, module.centres).topk(2, dim=1, largest=False).indices
    assert (two.indices == nearest).all(dim=1).float().mean() > 0.99


def test_a_reduction_begins_as_principal_components():
    module = make("netvlad_reduced")
    sample = blobs()[0]
    module.begin(sample, seed=0)
    expected = torch.from_numpy(PCA(3).fit_transform(sample.double().numpy())).float()
    found = module.reduction(sample)
    torch.testing.assert_close(found.abs(), expected.abs(), rtol=1e-3, atol=1e-4)


def test_netvlad_begins_with_identical_local_features():
    module = make("netvlad")
    module.begin(torch.eye(CHANNELS)[:1].expand(50, -1), seed=0)
    assert all(tensor.isfinite().all() for tensor in module.state_dict().values())


def test_netvlad_needs_as_many_local_features_as_clusters():
    with pytest.raises(ConfigError, match=r"train\.aggregator\.clusters is 4.*only 3"):
        make("netvlad").begin(torch.ones(3, CHANNELS), seed=0)


# SALAD


def plain_sinkhorn(scores, dustbin, rounds):
    """Scaling of exp(S) in float64, with the masses written out."""
    n, m = scores.shape
    kernel = np.exp(np.concatenate([scores, np.full((n, 1), dustbin)], axis=1))
    taken = np.append(np.ones(m), n - m) if n > m else np.full(m + 1, n / (m + 1))
    columns = np.ones(m + 1)
    for _ in range(rounds):
        rows = 1 / (kernel @ columns)
        columns = taken / (kernel.T @ rows)
    return rows[:, None] * kernel * columns


@pytest.mark.parametrize("rounds", [1, 3, 100])
@pytest.mark.parametrize(("n", "m"), [(16, 5), (6, 5), (5, 5), (3, 5), (1, 5)])
def test_transport_is_sinkhorns_algorithm(n, m, rounds):
    scores = 2 * torch.randn(2, n, m, generator=torch.Generator().manual_seed(n))
    found = transport(scores, torch.tensor(0.7), rounds=rounds)
    expected = [plain_sinkhorn(each.double().numpy(), 0.7, rounds) for each in scores]
    torch.testing.assert_close(found, torch.from_numpy(np.stack(expected)).float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("n", "m"), [(16, 5), (7, 5), (6, 5), (5, 5), (3, 5)])
def test_masses_are_those_stated(n, m):
    scores = torch.randn(2, n, m, generator=torch.Generator().manual_seed(n)).double()
    plan = transport(scores, torch.tensor(0.7), rounds=200)
    torch.testing.assert_close(plan.sum(dim=2), torch.ones(2, n).double())
    cluster = 1.0 if n > m else n / (m + 1)
    stated = torch.full((2, m + 1), cluster).double()
    stated[:, m] = n - m if n > m else cluster
    torch.testing.assert_close(plan.sum(dim=1), stated)
    after_three = transport(scores, torch.tensor(0.7), rounds=3)
    torch.testing.assert_close(after_three.sum(dim=1), stated)


def test_the_dustbin_takes_what_suits_no_cluster():
    scores = torch.zeros(1, 10, 4)
    scores[0, :4] = 30 * torch.eye(4)  # one local feature for each cluster, six for none
    plan = transport(scores, torch.tensor(15.0), rounds=3)[0]
    torch.testing.assert_close(plan[:4, :4], torch.eye(4), atol=0.02, rtol=0)
    torch.testing.assert_close(plan[4:, 4], torch.ones(6), atol=0.02, rtol=0)


def test_the_dustbins_score_matters_to_a_plan_of_few_rounds():
    scores = 5 * torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(0)).double()
    few, many = (
        (transport(scores, torch.tensor(9.0), rounds=r) - transport(scores, torch.tensor(1.0), rounds=r))
        .abs()
        .max()
        for r in (3, 2000)
    )
    assert few > 0.02
    assert many < 1e-6


def test_salad_drops_the_dustbin_and_weighs_reduced_features():
    module = make("salad")
    module.score[2].weight.data *= SPREAD
    prefix, patches = tokens()
    plan = transport(module.score(patches), module.dustbin, rounds=3)
    reduced, token = module.reduction(patches), module.overview(prefix[:, 0])
    for i in range(3):
        parts = [token[i] / token[i].norm()]
        for k in range(4):
            total = sum(plan[i, j, k] * reduced[i, j] for j in range(9))
            parts.append(total / total.norm())
        joined = torch.cat(parts)
        torch.testing.assert_close(module(prefix, patches)[i], joined / joined.norm())


def test_salads_global_token_is_the_class_token():
    module = make("salad", prefix=5)
    prefix, patches = tokens(prefix=5)
    feature = module(prefix, patches)
    registers, class_token = prefix.clone(), prefix.clone()
    registers[:, 1:] += 1
    class_token[:, 0] += 1
    torch.testing.assert_close(module(registers, patches), feature, atol=1e-6, rtol=0)
    changed = (module(class_token, patches) - feature).abs()
    assert changed[:, :5].max() > 1e-3
    torch.testing.assert_close(changed[:, 5:], torch.zeros(3, 12), atol=1e-6, rtol=0)


def test_without_a_class_token_the_global_token_is_the_mean():
    without, given_mean = make("salad", prefix=0), make("salad", prefix=1)
    prefix, patches = tokens(prefix=0)
    mean = patches.mean(dim=1, keepdim=True)
    torch.testing.assert_close(without(prefix, patches), given_mean(mean, patches))


# Settings


def test_settings_are_json():
    for settings_ in CHOICES.values():
        assert AggregatorSettings(**json.loads(json.dumps(asdict(settings_)))) == settings_


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("mean", 4, 0, 0), r"train\.aggregator\.kind is mean: expected pooled \| gem \| netvlad \| salad"),
        (("netvlad", 1, 0, 0), r"train\.aggregator\.clusters is 1: expected within 2 and 4096"),
        (("netvlad", 4, -1, 0), r"train\.aggregator\.channels is -1: expected 0"),
        (("salad", 4, 0, 0), r"train\.aggregator\.channels is 0: expected a positive number"),
        (("salad", 4, 3, -2), r"train\.aggregator\.global_length is -2: expected 0"),
    ],
)
def test_invalid_settings_are_named_in_the_error(values, message):
    with pytest.raises(ConfigError, match=message):
        AggregatorSettings(*values)


@pytest.mark.parametrize("kind", ["netvlad", "salad"])
def test_a_reduction_needs_enough_channels(kind):
    chosen = AggregatorSettings(kind, 4, CHANNELS + 1, 0)
    with pytest.raises(ConfigError, match=r"train\.aggregator\.channels is 7: expected at most 6"):
        make_aggregator(chosen, CHANNELS, 1)


def test_pooled_has_no_aggregator():
    with pytest.raises(ValueError, match="pooled"):
        make_aggregator(AggregatorSettings("pooled", 4, 0, 0), CHANNELS, 1)
