import type { Dispatcher as Types } from 'undici'
import api from 'undici/lib/api/index.js'
import buildConnector from 'undici/lib/core/connect.js'
import Agent from 'undici/lib/dispatcher/agent.js'
import Dispatcher from 'undici/lib/dispatcher/dispatcher.js'

// The part of undici that makes requests. Its index loads fetch, WebSocket, caches and mocks as well,
// which each process would pay for and none uses.

// As undici's own index does.
Object.assign(Dispatcher.prototype, api)

export { Agent, buildConnector }

/** Sends a request through a dispatcher. The caller must read or destroy the answer's body. */
export async function request(
  url: string | URL,
  options: Omit<Types.RequestOptions, 'origin' | 'path'> & { dispatcher: Types },
): Promise<Types.ResponseData> {
  const { dispatcher, ...rest } = options
  const { origin, pathname, search } = new URL(url)
  return await dispatcher.request({ ...rest, origin, path: pathname + search })
}
