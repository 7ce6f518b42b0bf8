from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt

from notes.models import Note


def index(request: HttpRequest) -> HttpResponse:
    return render(request, "notes.html", {"notes": Note.objects.order_by("-id")[:20]})


@csrf_exempt
def add(request: HttpRequest) -> JsonResponse:
    note = Note.objects.create(text=request.POST.get("text", "empty"))
    return JsonResponse({"id": note.pk, "count": Note.objects.count()})


def health(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"ok": True, "notes": Note.objects.count()})
