import { tellReadme } from './story.ts'

tellReadme('trixie')
