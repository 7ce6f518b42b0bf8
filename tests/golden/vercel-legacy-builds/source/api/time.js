module.exports = (request, response) => response.end("now");
