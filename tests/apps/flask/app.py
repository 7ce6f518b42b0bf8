from flask import Flask, jsonify, request

app = Flask(__name__)


@app.get("/")
def index():
    return "<h1>Hello from Flask</h1>"


@app.post("/echo")
def echo():
    return jsonify(request.get_json())
