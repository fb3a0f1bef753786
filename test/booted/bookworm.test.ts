import { tellReadme } from './story.ts'

tellReadme('bookworm')
