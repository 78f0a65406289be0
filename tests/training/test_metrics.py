"""Every metric against scikit-learn, statsmodels or a number worked out by hand."""

import time

import numpy as np
import pytest
from sklearn import metrics as sk

from tasks.training import metrics


@pytest.fixture
def cohort():
    """200 hip-visits of 60 patients, risks with ties, about 30% events."""
    draw = np.random.default_rng(7)
    clusters = np.sort(draw.integers(0, 60, 200)).astype(str)
    p = np.round(draw.beta(2, 4, 200), 2)
    y = (draw.random(200) < p).astype(float)
    return y, p, clusters


def test_measures_agree_with_scikit_learn(cohort):
    y, p, _ = cohort
    called = p >= 0.3
    assert metrics.auc(y, p) == pytest.approx(sk.roc_auc_score(y, p))
    assert metrics.average_precision(y, p) == pytest.approx(sk.average_precision_score(y, p))
    assert metrics.brier(y, p) == pytest.approx(sk.brier_score_loss(y, p))
    assert metrics.accuracy(y, p, threshold=0.3) == pytest.approx(sk.accuracy_score(y, called))
    assert metrics.recall(y, p, threshold=0.3) == pytest.approx(sk.recall_score(y, called))
    assert metrics.specificity(y, p, threshold=0.3) == pytest.approx(sk.recall_score(1 - y, ~called))
    assert metrics.precision(y, p, threshold=0.3) == pytest.approx(sk.precision_score(y, called))
    assert metrics.f1(y, p, threshold=0.3) == pytest.approx(sk.f1_score(y, called))
    assert metrics.balanced_accuracy(y, p, threshold=0.3) == pytest.approx(sk.balanced_accuracy_score(y, called))
    fpr, tpr, _ = metrics.roc_curve(y, p)
    assert np.trapezoid(tpr, fpr) == pytest.approx(metrics.auc(y, p))


@pytest.mark.parametrize(
    "statistic", [metrics.auc, metrics.average_precision, metrics.brier, metrics.ece, metrics.log_loss, metrics.slope]
)
def test_weights_are_repeated_rows(cohort, statistic):
    y, p, _ = cohort
    w = np.random.default_rng(1).integers(0, 4, (3, len(y))).astype(float)
    repeated = [statistic(np.repeat(y, row.astype(int)), np.repeat(p, row.astype(int))) for row in w]
    assert statistic(y, p, w=w) == pytest.approx(repeated, rel=1e-6)


def test_calibration_is_the_logistic_regression_of_statsmodels(cohort):
    import statsmodels.api as sm

    y, p, _ = cohort
    kept = (p > 0) & (p < 1)
    y, p = y[kept], p[kept]
    x = np.log(p / (1 - p))
    fit = sm.Logit(y, sm.add_constant(x)).fit(disp=0)
    assert metrics.calibration(y, p) == pytest.approx(tuple(fit.params), abs=1e-6)
    offset = sm.GLM(y, np.ones_like(y), family=sm.families.Binomial(), offset=x).fit()
    assert metrics.in_the_large(y, p) == pytest.approx(float(offset.params[0]), abs=1e-6)


def test_calibration_without_a_maximum_is_nan():
    assert np.isnan(metrics.slope([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]))  # separated
    assert np.isnan(metrics.slope([0, 1, 0, 1], [0.5] * 4))  # one risk
    assert np.isnan(metrics.slope([1, 1, 1], [0.2, 0.5, 0.7]))  # one class
    assert np.isnan(metrics.in_the_large([1, 1, 1], [0.2, 0.5, 0.7]))


def test_net_benefit_by_hand():
    # 10 rows, at 0.2: 3 true and 2 false positives: 3/10 - 2/10 * 0.25.
    y = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 1])
    p = np.array([0.9, 0.5, 0.2, 0.3, 0.2, 0.1, 0.1, 0.1, 0.0, 0.1])
    assert metrics.net_benefit(y, p, threshold=0.2) == pytest.approx(0.25)


def test_wilson_as_published():
    # Newcombe 1998 (Stat Med 17:857), table I: 81 of 263 and 15 of 148.
    assert metrics.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert metrics.wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)


def test_holm_as_in_r():
    # R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.005), "holm")
    assert metrics.holm([0.01, 0.02, 0.03, 0.04, 0.005]) == pytest.approx([0.04, 0.06, 0.06, 0.06, 0.025])
    assert metrics.holm([0.01, np.nan])[0] == pytest.approx(0.01)
    assert np.isnan(metrics.holm([0.01, np.nan])[1])


def test_delong_with_one_row_a_patient_is_delong():
    # Worked by the definition: variance of placement values over positives and over negatives.
    draw = np.random.default_rng(3)
    y = np.repeat([1.0, 0.0], 40)
    p = np.round(draw.normal(y, 1.0), 1)
    v10 = np.array([np.mean((p[y == 0] < x) + 0.5 * (p[y == 0] == x)) for x in p[y == 1]])
    v01 = np.array([np.mean((p[y == 1] > x) + 0.5 * (p[y == 1] == x)) for x in p[y == 0]])
    error = np.sqrt(v10.var(ddof=1) / 40 + v01.var(ddof=1) / 40)
    found = metrics.delong(y, p, np.arange(80))
    assert found.value == pytest.approx(v10.mean())
    # With every patient its own cluster the cross term is all but nil.
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * error, rel=0.03)


def test_bootstrap_and_delong_agree(cohort):
    y, p, clusters = cohort
    boot, analytic = metrics.clustered_bootstrap((y, p), clusters), metrics.delong(y, p, clusters)
    assert boot.value == analytic.value
    assert boot.low == pytest.approx(analytic.low, abs=0.02)
    assert boot.high == pytest.approx(analytic.high, abs=0.02)


def test_risks_of_different_folds_are_ranked_within_them(cohort):
    """A model that knows the prevalence of the other folds alone is wrong about pairs of folds, and is worth 0.5."""
    share = np.repeat([0.2, 0.4, 0.6], 50)
    fold = np.repeat(["0", "1", "2"], 50)
    y = np.concatenate([np.arange(50) < 50 * one for one in (0.2, 0.4, 0.6)]).astype(float)
    p = (1.2 - share) / 2
    assert metrics.auc(y, p) < 0.4
    patients = np.arange(150) // 2
    assert metrics.clustered_bootstrap((y, p), patients, n=50, strata=fold).value == 0.5
    assert metrics.delong(y, p, patients, strata=fold).value == 0.5
    y, p, clusters = cohort
    fold = np.asarray(clusters).astype(int) % 3
    boot = metrics.clustered_bootstrap((y, p), clusters, strata=fold)
    each = [metrics.auc(y[fold == k], p[fold == k]) for k in range(3)]
    weight = [y[fold == k].mean() * (1 - y[fold == k]).sum() for k in range(3)]
    assert boot.value == pytest.approx(np.average(each, weights=weight))
    analytic = metrics.delong(y, p, clusters, strata=fold)
    assert (boot.value, boot.low, boot.high) == pytest.approx((analytic.value, analytic.low, analytic.high), abs=0.03)
    shifted = metrics.clustered_bootstrap((y, p + 5 * fold), clusters, strata=fold)
    assert (shifted.value, shifted.low) == (boot.value, boot.low)
    assert metrics.clustered_bootstrap((y, p), clusters, n=50, strata=["all"] * len(y)) == metrics.clustered_bootstrap(
        (y, p), clusters, n=50)  # fmt: skip
    paired = metrics.paired_bootstrap(y, p, p + 5 * fold, clusters, n=50, strata=fold)
    assert (paired.value, paired.low, paired.high) == (0, 0, 0)


def test_an_estimate_says_what_it_rests_on(cohort):
    y, p, clusters = cohort
    found = metrics.clustered_bootstrap((y, p), clusters, metrics.auc, n=200, seed=1)
    value, low, high = found
    assert low < value < high
    assert (found.n, found.n_patients, found.n_events) == (200, len(set(clusters)), int(y.sum()))
    assert found == metrics.clustered_bootstrap((y, p), clusters, metrics.auc, n=200, seed=1)
    assert set(found.as_dict("auc")) >= {"auc", "auc_low", "auc_high", "n", "n_patients", "n_events"}


def test_clusters_widen_the_interval():
    # Each patient ten times over: rows say n = 400, patients say 40.
    draw = np.random.default_rng(5)
    y = np.repeat((draw.random(40) < 0.4).astype(float), 10)
    p = np.repeat(draw.random(40), 10)
    by_patient = metrics.clustered_bootstrap((y, p), np.repeat(np.arange(40), 10))
    by_row = metrics.clustered_bootstrap((y, p), np.arange(400))
    assert by_patient.high - by_patient.low > 2.5 * (by_row.high - by_row.low)


def test_degenerate_resamples_are_counted_and_nothing_is_invented():
    few = metrics.clustered_bootstrap(([1, 0, 0, 0], [0.9, 0.1, 0.2, 0.3]), ["a", "b", "c", "d"], n=500)
    assert few.value == 1.0 and 100 < few.degenerate < 250
    for y in ([0, 0, 0], [1, 1, 1]):
        none = metrics.clustered_bootstrap((y, [0.1, 0.2, 0.3]), ["a", "b", "c"], n=50)
        assert np.isnan(none.value) and np.isnan(none.low) and none.degenerate == 50
    assert np.isnan(metrics.clustered_bootstrap(([1, 0], [0.9, 0.1]), ["a", "a"]).low)
    empty = metrics.clustered_bootstrap(([], []), [])
    assert empty.n == 0 and empty.as_dict()["value"] is None


def test_unknown_labels_are_left_out():
    found = metrics.clustered_bootstrap(([1, 0, np.nan, 0], [0.9, 0.1, 0.5, np.nan]), list("abcd"), n=50)
    assert (found.n, found.n_patients) == (2, 2)


def test_paired_difference_has_a_p_value(cohort):
    y, p, clusters = cohort
    worse = np.random.default_rng(2).random(len(y))
    better = metrics.paired_bootstrap(y, p, worse, clusters)
    assert better.low > 0 and better.p_value is not None and better.p_value < 0.01
    same = metrics.paired_bootstrap(y, p, p, clusters)
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_any_function_can_be_resampled(cohort):
    y, p, clusters = cohort
    slow = metrics.clustered_bootstrap((y, p), clusters, metrics.by_rows(metrics.auc), n=50)
    assert slow == metrics.clustered_bootstrap((y, p), clusters, metrics.auc, n=50)


def test_two_thousand_resamples_take_under_a_second(cohort):
    y, p, clusters = cohort
    start = time.process_time()
    metrics.clustered_bootstrap((y, p), clusters, metrics.auc, n=2000)
    assert time.process_time() - start < 1.0


def test_bins_hold_everyone_and_ties_stay_together(cohort):
    y, p, _ = cohort
    bins = metrics.calibration_bins(y, p, 5)
    assert sum(row["n"] for row in bins) == 200 and sum(row["events"] for row in bins) == y.sum()
    assert all(row["low"] <= row["rate"] <= row["high"] for row in bins)
    assert len(metrics.calibration_bins(y, np.full(200, 0.3), 5)) == 1
