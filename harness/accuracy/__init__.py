"""How good detections are: VOC and COCO mean average precision with bootstrap intervals."""
