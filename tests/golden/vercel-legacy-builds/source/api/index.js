module.exports = (request, response) => response.end("ok");
