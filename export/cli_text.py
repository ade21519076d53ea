"""What ``mtl-export --help`` says before and after the options."""

from __future__ import annotations

from mtl_deploy.runtime.bundle.preprocessing import IMAGENET_MEAN, IMAGENET_STD

DESCRIPTION = """\
Turn a trained PyTorch network with one backbone and several heads into a bundle: one ONNX graph with one output per task,
proven to run the backbone once and to match PyTorch task by task; its FP16 variant; one separate model per task for
comparison; and TensorRT engines of all of them."""

EPILOG = f"""\
examples:
  mtl-export model.pt
      the article's network (ResNet backbone, heads fc1, fc2, ...), tasks age, gender, race
  mtl-export model.pt --task digit=multiclass --task parity=binary:even,odd --task ink=regression:percent
      the same layout with your own tasks, in the order of the heads
  mtl-export weights.pt --model faces:make --task 'gender=binary:male,female;activation=sigmoid' --task 'age=regression;scale=100'
      the network's own forward applies the sigmoid; other fields of a task are given in the same way
  mtl-export weights.pt --model mypackage.networks:make --tasks tasks.toml --image-size 256x320
      any network of yours: make() returns it, the file holds its weights
  mtl-export program.pt2 --tasks tasks.toml --images validation/ -o deploy/
      a torch.export program, verified on real images, written to deploy/program.mtl
  mtl-export model.onnx --tasks tasks.toml --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5
      an ONNX graph from any exporter, verified against that file itself
  mtl-export scenes.pt --model scenes:make --image-size 480x640 --task seg=segmentation:wall,floor --task depth=depth:metres
      one value per pixel: class indices and depth at the size of the image, from one pass
  mtl-export model.pt --transform torchvision:ResNet50_Weights.IMAGENET1K_V2
      images resized to 232, cropped to 224 and normalised as those weights were evaluated
  mtl-export model.pt --engine tensorrt-rtx --gpu sm86,sm89
      engines built ahead of time, without a GPU
  mtl-export model.mtl --batch 1:8:32
      on the device: builds engines for its GPU from the graphs of a bundle, without PyTorch
  mtl-export model.mtl --package ort model.ortpackage
      the bundle as ONNX Runtime's model package, a variant for each execution provider
  mtl-export old.mtl --upgrade
      a bundle of an earlier release, with its manifest in today's form
  mtl-export model.pt --check-target jetpack-6.0,tensorrt-10.3
      fails if a target's TensorRT could not read the graphs, and says what to change

defaults: image size 224x224, ImageNet's mean {",".join(map(str, IMAGENET_MEAN))} and std {",".join(map(str, IMAGENET_STD))}.
exit codes: 0 done; 1 the work failed (for example, a graph does not match the network); 2 input that cannot be used; 3 done,
but the images cannot decide whether a budget of --max-drop is met; 130 interrupted (143 by TERM, 129 by HUP).
Nothing is written unless the code is 0 or 3."""
