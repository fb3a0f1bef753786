// The parts of undici that `http.ts` loads. Its own types declare the whole only.
declare module 'undici/lib/api/index.js' {
  const api: Pick<import('undici').Dispatcher, 'request'>
  export = api
}
declare module 'undici/lib/core/connect.js' {
  import { buildConnector } from 'undici'
  export = buildConnector
}
declare module 'undici/lib/dispatcher/agent.js' {
  import { Agent } from 'undici'
  export = Agent
}
declare module 'undici/lib/dispatcher/dispatcher.js' {
  import { Dispatcher } from 'undici'
  export = Dispatcher
}
