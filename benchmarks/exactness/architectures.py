"""The architectures that the exactness benchmark goes through."""

from __future__ import annotations

#: Larger nets are left out: the float64 proof of a single one would take longer than that of fifty others.
LARGEST_PARAMETERS = {"timm": 100_000_000, "torchvision": 150_000_000}

#: In order of size, so that a run that is stopped has seen as many as possible.
_NAMES = """
torchvision:shufflenet_v2_x0_5 torchvision:squeezenet1_1 torchvision:squeezenet1_0 torchvision:mnasnet0_5
timm:mobilevit_xxs timm:mobilevitv2_050 timm:edgenext_xx_small torchvision:shufflenet_v2_x1_0
torchvision:mobilenet_v3_small timm:mobilenetv3_small_100 timm:lcnet_100 torchvision:mnasnet0_75
timm:efficientvit_b0 torchvision:mobilenet_v2 timm:mobilenetv2_100 timm:regnetx_002 torchvision:shufflenet_v2_x1_5
timm:mobilenetv4_conv_small timm:mixnet_s timm:semnasnet_100 timm:fasternet_t0 timm:starnet_s1 timm:cs3darknet_s
timm:regnety_002 timm:repghostnet_100 timm:lcnetv2_small torchvision:mnasnet1_0 timm:mnasnet_100 timm:spnasnet_100
timm:inception_next_atto timm:mobilenetv1_100 timm:fastvit_t8 timm:convnext_atto timm:tf_efficientnet_lite0
timm:convnextv2_atto timm:rexnet_100 timm:fbnetc_100 timm:rexnetr_100 timm:ghostnet_100 timm:hgnetv2_b0
timm:hardcorenas_a timm:efficientnet_b0 timm:tf_efficientnet_b0 torchvision:efficientnet_b0 timm:efficientnet_es
torchvision:mobilenet_v3_large timm:mobilenetv3_large_100 timm:mobileone_s0 torchvision:regnet_y_400mf
timm:repvit_m1 timm:ghostnetv2_100 timm:tinynet_a timm:resnet10t torchvision:mnasnet1_3
torchvision:shufflenet_v2_x2_0 torchvision:regnet_x_400mf timm:ese_vovnet19b_dw timm:tf_efficientnetv2_b0
timm:shvit_s1 timm:mambaout_femto timm:gernet_s torchvision:regnet_y_800mf torchvision:efficientnet_b1
timm:fbnetv3_b timm:ghostnetv3_100 timm:densenet121 torchvision:densenet121 timm:densenetblur121d
torchvision:regnet_x_800mf torchvision:efficientnet_b2 timm:nf_regnet_b0 timm:repvgg_a0 timm:regnetz_b16
timm:resnest14d torchvision:regnet_x_1_6gf torchvision:googlenet torchvision:efficientnet_b3 timm:hrnet_w18_small
timm:resnetv2_18 timm:resnet18 timm:resnetblur18 torchvision:resnet18 torchvision:regnet_y_1_6gf
timm:legacy_seresnet18 timm:poolformer_s12 timm:skresnet18 timm:dpn68b torchvision:densenet169
timm:efficientnetv2_rw_t timm:hgnet_tiny timm:ecaresnet26t timm:resnet26d timm:seresnext26d_32x4d timm:resnest26d
timm:dla34 torchvision:regnet_x_3_2gf torchvision:efficientnet_b4 torchvision:densenet201 timm:eca_resnet33ts
timm:gcresnet33ts torchvision:regnet_y_3_2gf timm:regnetv_040 timm:dla60_res2net torchvision:efficientnet_v2_s
timm:convmixer_768_32 timm:cspresnet50 timm:legacy_xception timm:cs3sedarknet_l torchvision:resnet34 timm:vovnet39a
timm:eca_vovnet39b timm:eca_nfnet_l0 timm:res2next50 timm:rdnet_tiny timm:resnext50_32x4d
torchvision:resnext50_32x4d timm:resnetv2_50 timm:resnetv2_50x1_bit timm:resnet50 timm:resnet50_gn timm:resnetaa50
torchvision:resnet50 timm:nf_resnet50 timm:res2net50_26w_4s torchvision:inception_v3 timm:convformer_s18
timm:xception41 timm:seresnet50 torchvision:densenet161 timm:cspdarknet53 timm:convnext_tiny
torchvision:convnext_tiny timm:ecaresnetlight torchvision:efficientnet_b5 timm:tresnet_m timm:selecsls42b
timm:resnetrs50 torchvision:regnet_y_8gf torchvision:regnet_x_8gf timm:darknet53 torchvision:efficientnet_b6
timm:inception_v4 torchvision:resnet101 torchvision:convnext_small torchvision:efficientnet_v2_m
torchvision:regnet_x_16gf timm:inception_resnet_v2 torchvision:alexnet torchvision:resnet152
torchvision:efficientnet_b7 torchvision:wide_resnet50_2 torchvision:resnext101_64x4d torchvision:regnet_y_16gf
torchvision:resnext101_32x8d torchvision:convnext_base torchvision:regnet_x_32gf torchvision:efficientnet_v2_l
torchvision:wide_resnet101_2 torchvision:vgg11 torchvision:vgg11_bn torchvision:vgg13 torchvision:vgg13_bn
torchvision:vgg16 torchvision:vgg16_bn torchvision:vgg19 torchvision:vgg19_bn torchvision:regnet_y_32gf
torchvision:convnext_large torchvision:regnet_y_128gf
"""


def all_names() -> list[str]:
    """Every architecture as ``library:name``, small ones first."""
    return _NAMES.split()
