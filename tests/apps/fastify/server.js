import Fastify from 'fastify';

const app = Fastify({ logger: true });

app.get('/', async () => ({ hello: 'fastify' }));
app.post('/echo', async (request) => request.body);

await app.listen({ host: '0.0.0.0', port: Number(process.env.PORT ?? 3000) });
process.on('SIGTERM', () => app.close());
