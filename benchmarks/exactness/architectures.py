"""The architectures that the exactness benchmark goes through."""

from __future__ import annotations

#: Larger nets are left out: the float64 proof of a single one would take longer than that of fifty others.
LARGEST_PARAMETERS = {"timm": 100_000_000, "torchvision": 150_000_000}

_TIMM = """
resnet10t resnet18 resnet26d resnet50 resnet50_gn resnetaa50 resnetblur18 seresnet50 skresnet18 ecaresnet26t
ecaresnetlight resnext50_32x4d seresnext26d_32x4d resnetv2_18 resnetv2_50 resnetv2_50x1_bit resnetrs50
legacy_seresnet18 regnetx_002 regnety_002 regnetz_b16 regnetv_040 densenet121 densenetblur121d dla34 dla60_res2net
dpn68b rdnet_tiny res2net50_26w_4s res2next50 resnest14d resnest26d efficientnet_b0 tf_efficientnet_b0
tf_efficientnet_lite0 efficientnet_es tf_efficientnetv2_b0 efficientnetv2_rw_t mixnet_s mobilenetv1_100
mobilenetv2_100 mobilenetv3_small_100 mobilenetv3_large_100 mobilenetv4_conv_small mobileone_s0 mnasnet_100
semnasnet_100 spnasnet_100 fbnetc_100 fbnetv3_b lcnet_100 tinynet_a hardcorenas_a ghostnet_100 ghostnetv2_100
ghostnetv3_100 repghostnet_100 rexnet_100 rexnetr_100 repvgg_a0 repvit_m1 gernet_s gcresnet33ts eca_resnet33ts
cspresnet50 cspdarknet53 cs3darknet_s cs3sedarknet_l darknet53 hgnet_tiny hgnetv2_b0 hrnet_w18_small vovnet39a
ese_vovnet19b_dw eca_vovnet39b selecsls42b tresnet_m nf_resnet50 nf_regnet_b0 eca_nfnet_l0 convnext_atto
convnext_tiny convnextv2_atto convmixer_768_32 poolformer_s12 convformer_s18 fasternet_t0 starnet_s1
edgenext_xx_small mobilevit_xxs mobilevitv2_050 fastvit_t8 mambaout_femto inception_next_atto inception_v4
inception_resnet_v2 legacy_xception xception41 efficientvit_b0 lcnetv2_small shvit_s1
"""

_TORCHVISION = """
alexnet squeezenet1_0 squeezenet1_1 shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0
mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small resnet18 resnet34
resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d resnext101_64x4d wide_resnet50_2 wide_resnet101_2
densenet121 densenet161 densenet169 densenet201 googlenet inception_v3 efficientnet_b0 efficientnet_b1
efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_s
efficientnet_v2_m efficientnet_v2_l regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf
regnet_x_16gf regnet_x_32gf regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf regnet_y_16gf
regnet_y_32gf regnet_y_128gf convnext_tiny convnext_small convnext_base convnext_large vgg11 vgg11_bn vgg13 vgg13_bn
vgg16 vgg16_bn vgg19 vgg19_bn
"""


def all_names() -> list[str]:
    """Every architecture as ``library:name``, the two libraries in turns, so that a stopped run has seen both."""
    timm, torchvision = (
        [f"timm:{name}" for name in _TIMM.split()],
        [f"torchvision:{name}" for name in _TORCHVISION.split()],
    )
    taken: list[str] = []
    while timm or torchvision:
        taken += timm[:2] + torchvision[:1]
        timm, torchvision = timm[2:], torchvision[1:]
    return taken
