"""``/v1/classify``: crops in, probabilities out, in batches across connections. Must not know the network."""

import math

from sanic import Blueprint, HTTPResponse, Request

from carina.serve.crops import body_bytes, parse_crops
from carina.serve.present import json_response
from carina.serve.reading import claimed_bytes, read_body
from carina.serve.service import Service

classification = Blueprint("classification")


@classification.post("/v1/classify", stream=True)
async def post_crops(request: Request) -> HTTPResponse:
    """Classify the crops of one request."""
    service: Service = request.app.ctx.service
    limits = service.settings.limits
    classifier, batcher = service.classifier()
    most = body_bytes(limits.crops, classifier.shape_zyx)
    room = math.ceil(limits.crops * claimed_bytes(request, most) / most)
    with service.slot("crops", limits.queued_crops, room):
        body = await read_body(request, most, limits)
        query = {name: values[0] for name, values in request.args.items()}
        crops = parse_crops(body, query, classifier.shape_zyx, limits.crops)
    return json_response(classifier.answer(crops, await batcher.classify(list(crops.hu))))


@classification.get("/v1/classify")
async def get_card(request: Request) -> HTTPResponse:
    """What crops must look like, and which model answers."""
    service: Service = request.app.ctx.service
    return json_response(service.classifier()[0].card)
